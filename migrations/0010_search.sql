-- What lists are searched and ordered by, at a million studies.

-- How urgent a study is to those who read: 4 positive, or alerted and not decided yet; 3 failed; 2 under way; 1 not
-- analysed; 0 negative.
ALTER TABLE study ADD COLUMN urgency INTEGER NOT NULL GENERATED ALWAYS AS (CASE
    WHEN positive = 1 OR (positive IS NULL AND alerted_at IS NOT NULL) THEN 4
    WHEN status = 'failed' THEN 3
    WHEN status IN ('receiving', 'queued', 'analysing') THEN 2
    WHEN status = 'not-analysed' THEN 1
    ELSE 0 END) VIRTUAL;

CREATE INDEX study_urgency ON study (urgency DESC, received_at DESC, id DESC, study_date, status, positive, source_ae);
CREATE INDEX study_source_urgency ON study (source_ae, urgency DESC, received_at DESC, id DESC);
CREATE INDEX study_reason ON study (reason_code, received_at DESC, id DESC) WHERE reason_code IS NOT NULL;
CREATE INDEX study_reason_urgency ON study (reason_code, urgency DESC, received_at DESC, id DESC)
    WHERE reason_code IS NOT NULL;

-- Names by the beginnings of their words, whatever the script, the case and the accents.
CREATE VIRTUAL TABLE study_name USING fts5 (
    patient_name, content = 'study', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2', prefix = '1 2 3 4 5 6'
);
INSERT INTO study_name (rowid, patient_name) SELECT id, patient_name FROM study WHERE patient_name IS NOT NULL;

-- The index follows the column. No study is ever deleted.
CREATE TRIGGER study_name_arrives AFTER INSERT ON study WHEN new.patient_name IS NOT NULL BEGIN
    INSERT INTO study_name (rowid, patient_name) VALUES (new.id, new.patient_name);
END;
CREATE TRIGGER study_name_is_filled AFTER UPDATE OF patient_name ON study
    WHEN old.patient_name IS NULL AND new.patient_name IS NOT NULL BEGIN
    INSERT INTO study_name (rowid, patient_name) VALUES (new.id, new.patient_name);
END;
CREATE TRIGGER study_name_changes AFTER UPDATE OF patient_name ON study
    WHEN old.patient_name IS NOT NULL AND old.patient_name IS NOT new.patient_name BEGIN
    INSERT INTO study_name (study_name, rowid, patient_name) VALUES ('delete', old.id, old.patient_name);
    INSERT INTO study_name (rowid, patient_name) VALUES (new.id, new.patient_name);
END;

-- Queues, the newest first.
CREATE INDEX outbox_status ON outbox (status, id);
