-- A task list that does not take our word for good: the task stands as `refused` until somebody has it tried again, or gives it up.
-- The rows are moved into a table that knows these states.

CREATE TABLE task_with_refusals (
    id              INTEGER PRIMARY KEY,
    -- Name of the [[task_list]].
    list            TEXT    NOT NULL,
    -- SOP Instance UID of the workitem.
    workitem        TEXT    NOT NULL,
    transaction_uid TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status IN ('left', 'claiming', 'claimed', 'waiting', 'ending', 'completed',
                        'canceled', 'lost', 'refused', 'given-up')),
    study_instance  TEXT    NOT NULL,
    -- Scheduled Procedure Step Priority is HIGH.
    urgent          INTEGER NOT NULL CHECK (urgent IN (0, 1)),
    -- What the workitem asks for and what its input is, as JSON.
    request         TEXT    NOT NULL,
    -- What its performer says in the end, as JSON; null before that is known.
    ending          TEXT,
    -- Somebody wants it canceled: why.
    cancel_words    TEXT,
    -- What was said of the progress last, in percent.
    progress        INTEGER NOT NULL DEFAULT 0,
    -- Failures in a row of the present step.
    failures        INTEGER NOT NULL DEFAULT 0,
    -- Those of them that were refusals for good.
    refusals        INTEGER NOT NULL DEFAULT 0,
    -- Since when the list is asked for the claim, or told the end.
    asked_since     INTEGER NOT NULL,
    next_attempt    INTEGER NOT NULL,
    seen_at         INTEGER NOT NULL,
    claimed_at      INTEGER,
    ended_at        INTEGER,
    last_words      TEXT,
    UNIQUE (list, workitem)
) STRICT;

INSERT INTO task_with_refusals (id, list, workitem, transaction_uid, status, study_instance, urgent, request, ending,
        cancel_words, progress, failures, asked_since, next_attempt, seen_at, claimed_at, ended_at, last_words)
    SELECT id, list, workitem, transaction_uid, status, study_instance, urgent, request, ending,
        cancel_words, progress, failures, next_attempt, next_attempt, seen_at, claimed_at, ended_at, last_words
    FROM task;

DROP TABLE task;
ALTER TABLE task_with_refusals RENAME TO task;

CREATE INDEX task_open ON task (list, next_attempt) WHERE status IN ('claiming', 'claimed', 'waiting', 'ending');
CREATE INDEX task_urgent ON task (study_instance) WHERE urgent = 1;
