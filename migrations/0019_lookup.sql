-- Look-ups: what peers (a worklist, a PACS) say of studies that arrive. What was received stays as it was received.

CREATE TABLE lookup (
    study_id         INTEGER NOT NULL REFERENCES study (id),
    -- Name of the [[lookup]].
    peer             TEXT    NOT NULL,
    -- Its place in the configuration: of two accession numbers the first one's is shown.
    rank             INTEGER NOT NULL,
    -- The study's version when the peer was asked: one that opens again is asked about again.
    version          INTEGER NOT NULL,
    -- When it is asked next; null: no more.
    next_ask         INTEGER,
    asks             INTEGER NOT NULL DEFAULT 0,
    -- Questions in a row that brought nothing.
    failures         INTEGER NOT NULL DEFAULT 0,
    answered_at      INTEGER,
    accession_number TEXT,
    -- The numbers of instances as they were told, and since when they are told alike.
    told             TEXT,
    told_since       INTEGER,
    -- What they come to: instances that are here and instances that are not.
    expected         INTEGER,
    -- Until when the study waits for those that are not.
    hold_until       INTEGER,
    last_words       TEXT,
    PRIMARY KEY (study_id, peer)
) STRICT, WITHOUT ROWID;

CREATE INDEX lookup_due ON lookup (peer, next_ask) WHERE next_ask IS NOT NULL;

CREATE TABLE lookup_count (
    peer    TEXT    NOT NULL,
    outcome TEXT    NOT NULL CHECK (outcome IN ('answered', 'nothing', 'doubtful', 'failed')),
    count   INTEGER NOT NULL,
    PRIMARY KEY (peer, outcome)
) STRICT, WITHOUT ROWID;

ALTER TABLE study ADD COLUMN looked_up_accession TEXT;
-- Which peer said so.
ALTER TABLE study ADD COLUMN accession_source TEXT;
-- The one that is shown and searched for: what was received comes first.
ALTER TABLE study ADD COLUMN accession TEXT
    GENERATED ALWAYS AS (COALESCE(accession_number, looked_up_accession)) VIRTUAL;
ALTER TABLE study ADD COLUMN expected_instances INTEGER;
-- A study that is quiet and lacks expected instances closes then.
ALTER TABLE study ADD COLUMN hold_until INTEGER;

DROP INDEX study_accession;
CREATE INDEX study_accession ON study (accession, received_at DESC, id DESC);

-- What objects of a version say of the order: fixed when its analysis is claimed first, so that a retry is the same.
ALTER TABLE analysis ADD COLUMN looked_up_accession TEXT;
ALTER TABLE analysis ADD COLUMN accession_fixed INTEGER NOT NULL DEFAULT 0 CHECK (accession_fixed IN (0, 1));
UPDATE analysis SET accession_fixed = 1 WHERE started_at IS NOT NULL;
