-- Storage Commitment (PS3.4 Annex J): what peers asked for, what was found, and whether they have heard it.

CREATE TABLE commitment (
    id              INTEGER PRIMARY KEY,
    peer_ae         TEXT    NOT NULL,
    transaction_uid TEXT    NOT NULL,
    -- The association of the last request; while it is open, the report goes out on it.
    association_id  INTEGER NOT NULL REFERENCES association (id),
    status          TEXT    NOT NULL CHECK (status IN ('waiting', 'ready', 'reporting', 'answered', 'dead')),
    requested_at    INTEGER NOT NULL,
    -- When 'waiting': the next look. When 'ready': the next attempt to report.
    next_attempt    INTEGER NOT NULL,
    -- Until then, instances that are not there yet may still come.
    wait_until      INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    judged_at       INTEGER,
    finished_at     INTEGER,
    -- What the peer, or the last failed attempt, said.
    last_words      TEXT,
    UNIQUE (peer_ae, transaction_uid)
) STRICT;

CREATE INDEX commitment_due ON commitment (status, next_attempt, id);
CREATE INDEX commitment_association ON commitment (association_id, status);

CREATE TABLE commitment_reference (
    commitment_id INTEGER NOT NULL REFERENCES commitment (id),
    position      INTEGER NOT NULL,
    sop_class     TEXT    NOT NULL,
    sop_instance  TEXT    NOT NULL,
    -- Failure Reason (0008,1197) as it was found; null: committed, or not judged yet.
    failure       INTEGER,
    PRIMARY KEY (commitment_id, position)
) STRICT, WITHOUT ROWID;
