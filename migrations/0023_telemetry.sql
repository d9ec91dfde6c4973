-- Traces for OpenTelemetry: how far the event log was followed, and which studies have something to be exported. Nothing else
-- follows from these tables.

CREATE TABLE trace_cursor (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    event_id INTEGER NOT NULL
) STRICT;

CREATE TABLE study_trace (
    study_id      INTEGER PRIMARY KEY REFERENCES study (id),
    -- What ended by this event is exported; 0: nothing is.
    after_event   INTEGER NOT NULL DEFAULT 0,
    -- The end of what is being exported: the same at every attempt. Null: nothing is being exported.
    through_event INTEGER,
    -- When the oldest event happened that is not exported; null: there is none.
    waiting_since INTEGER,
    -- When it is looked at next; null: never, until something happens.
    due_at        INTEGER,
    attempts      INTEGER NOT NULL DEFAULT 0,
    exported_at   INTEGER,
    -- Why the last attempt failed.
    last_words    TEXT
) STRICT;

CREATE INDEX study_trace_due ON study_trace (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX study_trace_waiting ON study_trace (waiting_since) WHERE waiting_since IS NOT NULL;

-- Totals since the database was made.
CREATE TABLE trace_total (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    spans    INTEGER NOT NULL DEFAULT 0,
    exports  INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    refused  INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO trace_total (only_row) VALUES (1);
