-- What is known of a destination as a whole, so that what holds its queue up is found and told once.

CREATE TABLE destination (
    name       TEXT    PRIMARY KEY,
    state      TEXT    NOT NULL CHECK (state IN ('up', 'down')),
    since      INTEGER NOT NULL,
    -- Attempts in a row that found nobody.
    failures   INTEGER NOT NULL DEFAULT 0,
    -- While down: when somebody looks again.
    next_probe INTEGER,
    last_words TEXT
) STRICT, WITHOUT ROWID;

-- Presentation contexts that a destination does not accept. Until then nothing of this kind is sent there.
CREATE TABLE refused_context (
    destination     TEXT    NOT NULL,
    sop_class       TEXT    NOT NULL,
    transfer_syntax TEXT    NOT NULL,
    since           INTEGER NOT NULL,
    until           INTEGER NOT NULL,
    PRIMARY KEY (destination, sop_class, transfer_syntax)
) STRICT, WITHOUT ROWID;

-- The last closed version of which it is decided whether it is forwarded. Studies that are here already stay.
ALTER TABLE study ADD COLUMN forwarded_version INTEGER NOT NULL DEFAULT 0;
UPDATE study SET forwarded_version = version;
CREATE INDEX study_undecided ON study (id) WHERE version > forwarded_version;
