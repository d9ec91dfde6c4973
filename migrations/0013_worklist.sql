-- The worklist: unified procedure steps (PS3.4 Annex CC), who hears of them, and what they have not heard yet.

CREATE TABLE workitem (
    id          INTEGER PRIMARY KEY,
    uid         TEXT    NOT NULL UNIQUE,
    state       TEXT    NOT NULL CHECK (state IN ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
    -- Who has the transaction UID has claimed it.
    transaction_uid TEXT,
    -- One more at each change: two who change the same revision cannot both succeed.
    revision    INTEGER NOT NULL DEFAULT 1,
    -- 0 HIGH, 1 MEDIUM, 2 LOW.
    priority    INTEGER NOT NULL CHECK (priority IN (0, 1, 2)),
    -- Scheduled Procedure Step Start DateTime, as its text.
    starts      TEXT    NOT NULL,
    -- The study that our own analysis made it for, and which version; NULL: a peer's.
    study_id    INTEGER REFERENCES study (id),
    version     INTEGER,
    -- DICOM JSON (PS3.18 Annex F).
    attributes  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX workitem_order ON workitem (state, priority, starts, id);
CREATE UNIQUE INDEX workitem_study ON workitem (study_id, version) WHERE study_id IS NOT NULL;

CREATE TABLE workitem_subscription (
    subscriber    TEXT    NOT NULL,
    -- A workitem's UID, or 1.2.840.10008.5.1.4.34.5: all of them.
    target        TEXT    NOT NULL,
    deletion_lock INTEGER NOT NULL CHECK (deletion_lock IN (0, 1)),
    PRIMARY KEY (subscriber, target)
) STRICT, WITHOUT ROWID;

CREATE INDEX workitem_subscription_target ON workitem_subscription (target);

-- Kept until it was written to the subscriber's event channel.
CREATE TABLE workitem_report (
    id         INTEGER PRIMARY KEY,
    subscriber TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX workitem_report_subscriber ON workitem_report (subscriber, id);
