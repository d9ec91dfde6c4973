-- What is told to whom: one queue a channel, filled from the event log.

CREATE TABLE channel (
    name     TEXT    PRIMARY KEY,
    -- The last event that was looked at: what happened before a channel was configured is not told.
    event_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    channel      TEXT    NOT NULL REFERENCES channel (name),
    event_id     INTEGER NOT NULL REFERENCES event (id),
    study_id     INTEGER NOT NULL REFERENCES study (id),
    subject      TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('queued', 'sending', 'acknowledged', 'dead')),
    -- Alerts and positives go first.
    urgent       INTEGER NOT NULL CHECK (urgent IN (0, 1)),
    attempts     INTEGER NOT NULL DEFAULT 0,
    queued_at    INTEGER NOT NULL,
    next_attempt INTEGER NOT NULL,
    finished_at  INTEGER,
    -- What the peer, or the last failed attempt, said.
    last_words   TEXT,
    UNIQUE (channel, event_id)
) STRICT;

CREATE INDEX message_order ON message (channel, status, urgent DESC, id);
CREATE INDEX message_study ON message (study_id, channel, id);
CREATE INDEX message_status ON message (status, id);
