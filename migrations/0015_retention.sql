-- Care of the space: which files are no longer kept, and which studies never go.

ALTER TABLE study ADD COLUMN held_at INTEGER;
ALTER TABLE study ADD COLUMN hold_reason TEXT;
-- Since when received files, and files of results, are gone; null: all are here.
ALTER TABLE study ADD COLUMN pixels_removed_at INTEGER;
ALTER TABLE study ADD COLUMN results_removed_at INTEGER;
-- When received files that were gone came again: their age counts from here.
ALTER TABLE study ADD COLUMN restored_at INTEGER;
-- Whether nothing is left that could go: such a study is not looked at again until something comes.
ALTER TABLE study ADD COLUMN received_swept INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN results_swept INTEGER NOT NULL DEFAULT 0;

CREATE INDEX study_received_kept ON study (received_at, id) WHERE received_swept = 0;
CREATE INDEX study_results_kept ON study (received_at, id) WHERE results_swept = 0;

-- A row whose file is no longer kept: the file is doomed or gone.
ALTER TABLE instance ADD COLUMN removed_at INTEGER;
ALTER TABLE conflict ADD COLUMN removed_at INTEGER;
ALTER TABLE object ADD COLUMN removed_at INTEGER;

-- Files that are still to be removed. Written with the mark on the row, deleted when the file is gone from the medium.
CREATE TABLE doomed_blob (
    blob TEXT    PRIMARY KEY,
    size INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: what retention has done so far, and what the last sweep found.
CREATE TABLE retention (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    studies          INTEGER NOT NULL DEFAULT 0,
    files            INTEGER NOT NULL DEFAULT 0,
    bytes            INTEGER NOT NULL DEFAULT 0,
    swept_at         INTEGER,
    -- Studies whose time had come and which a protection kept.
    spared           INTEGER NOT NULL DEFAULT 0,
    -- Bytes that are wanted and that no study may give.
    short_bytes      INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO retention (id) VALUES (1);

-- Events of no study may be deleted by age; who is told of events is asked for each that goes.
CREATE INDEX event_alone ON event (at) WHERE study_id IS NULL;
CREATE INDEX message_event ON message (event_id);
