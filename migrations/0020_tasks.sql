-- Workitems of others that we perform (PS3.4 Annex CC, IHE AIW-I Task Performer). The Transaction UID is here before it is sent,
-- so that a claim whose answer nobody heard can be gone on with.

CREATE TABLE task (
    id              INTEGER PRIMARY KEY,
    -- Name of the [[task_list]].
    list            TEXT    NOT NULL,
    -- SOP Instance UID of the workitem.
    workitem        TEXT    NOT NULL,
    transaction_uid TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status IN ('left', 'claiming', 'claimed', 'waiting', 'ending', 'completed',
                        'canceled', 'lost')),
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
    next_attempt    INTEGER NOT NULL,
    seen_at         INTEGER NOT NULL,
    claimed_at      INTEGER,
    ended_at        INTEGER,
    last_words      TEXT,
    UNIQUE (list, workitem)
) STRICT;

CREATE INDEX task_open ON task (list, next_attempt) WHERE status IN ('claiming', 'claimed', 'waiting', 'ending');
CREATE INDEX task_urgent ON task (study_instance) WHERE urgent = 1;

-- Whether a task list answered when it was looked at last. Written when that changes.
CREATE TABLE task_list (
    name       TEXT    PRIMARY KEY,
    is_up      INTEGER NOT NULL CHECK (is_up IN (0, 1)),
    since      INTEGER NOT NULL,
    last_words TEXT
) STRICT, WITHOUT ROWID;
