-- How far the audit repository was told of the audit trail and of the event log, by audit messages over syslog (PS3.15 A.5).

CREATE TABLE audit_feed (
    only_row  INTEGER PRIMARY KEY CHECK (only_row = 1),
    -- The last row of each that it was told of; what happened before it was configured is not told.
    audit_id  INTEGER NOT NULL,
    event_id  INTEGER NOT NULL,
    -- Whether the configuration names one at present.
    is_fed    INTEGER NOT NULL CHECK (is_fed IN (0, 1)),
    told      INTEGER NOT NULL DEFAULT 0,
    failures  INTEGER NOT NULL DEFAULT 0,
    -- Why it could not be told last; null since it could.
    words     TEXT,
    told_at   INTEGER
) STRICT;
