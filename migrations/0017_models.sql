-- Models beside each other: which one is active and since when, which others look on, and what those said.

-- What the daemon was configured with at its last start; written anew at each.
CREATE TABLE model_offer (
    -- 0: [model]; then [[model.also]] in their order.
    position   INTEGER PRIMARY KEY,
    weights    TEXT    NOT NULL,
    -- Null where the manifest cannot be read.
    model      TEXT,
    state      TEXT    NOT NULL CHECK (state IN ('waiting', 'ready', 'failed')),
    -- The device, or why it cannot be used.
    words      TEXT    NOT NULL,
    -- JSON of what pages show of it; null until it was loaded once.
    facts      TEXT,
    updated_at INTEGER NOT NULL
) STRICT;

-- Which model has been active from when to when, by whose word and why; and what was asked for.
CREATE TABLE model_activation (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    model        TEXT    NOT NULL,
    kind         TEXT    NOT NULL CHECK (kind IN ('configured', 'activated', 'rolled-back')),
    status       TEXT    NOT NULL CHECK (status IN ('requested', 'active', 'former', 'refused')),
    actor        TEXT    NOT NULL,
    why          TEXT    NOT NULL,
    requested_at INTEGER NOT NULL,
    from_at      INTEGER,
    until_at     INTEGER,
    -- Why it was refused.
    words        TEXT
) STRICT;

CREATE UNIQUE INDEX model_activation_active ON model_activation (status) WHERE status = 'active';
CREATE UNIQUE INDEX model_activation_requested ON model_activation (status) WHERE status = 'requested';

-- The model that somebody asked for; null: the active one.
ALTER TABLE analysis ADD COLUMN wanted_model TEXT;

-- What a model in the shadow says of the slices of an analysis that is committed. No other table follows from this one.
CREATE TABLE shadow_run (
    id             INTEGER PRIMARY KEY,
    analysis_id    INTEGER NOT NULL REFERENCES analysis (id) ON DELETE CASCADE,
    model          TEXT    NOT NULL,
    status         TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'dropped')),
    attempts       INTEGER NOT NULL DEFAULT 0,
    queued_at      INTEGER NOT NULL,
    not_before     INTEGER NOT NULL,
    started_at     INTEGER,
    finished_at    INTEGER,
    -- The model that the analysis was made with, and what it found: JSON of the finding.
    active_model   TEXT    NOT NULL,
    active_finding TEXT    NOT NULL,
    -- JSON of the finding; null while there is none, or where the outcome is a reason.
    finding        TEXT,
    reason_code    TEXT,
    reason_text    TEXT,
    -- Dice of its masks against the active model's; null where one of the two has none.
    dice           REAL,
    milliseconds   INTEGER,
    UNIQUE (analysis_id, model)
) STRICT;

CREATE INDEX shadow_run_queue ON shadow_run (status, queued_at, id);
CREATE INDEX shadow_run_count ON shadow_run (model, status);
CREATE INDEX shadow_run_model ON shadow_run (model, active_model, finished_at);

-- How far the event log was read for analyses that shadows are to see.
CREATE TABLE shadow_cursor (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    event_id INTEGER NOT NULL
) STRICT;
