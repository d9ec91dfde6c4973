-- Proof of delivery: what a peer accepted is asked for again, by storage commitment, by a query, or by both. A delivery is of
-- a result object or, forwarded, of a received instance.

-- Requests for storage commitment (PS3.4 Annex J) as user: here before they are sent, so that a late report finds them.
CREATE TABLE proof_request (
    id              INTEGER PRIMARY KEY,
    destination     TEXT    NOT NULL,
    transaction_uid TEXT    NOT NULL UNIQUE,
    status          TEXT    NOT NULL CHECK (status IN ('asked', 'reported', 'failed')),
    asked_at        INTEGER NOT NULL,
    -- After that no report is waited for; one that comes all the same is taken.
    report_by       INTEGER NOT NULL,
    finished_at     INTEGER,
    last_words      TEXT
) STRICT;

CREATE INDEX proof_request_due ON proof_request (destination, report_by) WHERE status = 'asked';

CREATE TABLE outbox_proven (
    id             INTEGER PRIMARY KEY,
    study_id       INTEGER NOT NULL REFERENCES study (id),
    object_id      INTEGER REFERENCES object (id),
    instance_id    INTEGER REFERENCES instance (id),
    destination    TEXT    NOT NULL,
    status         TEXT    NOT NULL
        CHECK (status IN ('queued', 'sending', 'accepted', 'committed', 'visible', 'dead')),
    -- Positives go first.
    urgent         INTEGER NOT NULL CHECK (urgent IN (0, 1)),
    attempts       INTEGER NOT NULL DEFAULT 0,
    queued_at      INTEGER NOT NULL,
    next_attempt   INTEGER NOT NULL,
    finished_at    INTEGER,
    -- What the peer, or the last failed attempt, said.
    last_words     TEXT,
    -- What is still to be proven; null: nothing.
    proof          TEXT CHECK (proof IN ('commitment', 'commitment+read-back', 'read-back')),
    -- Answers of the present proof that proved nothing.
    proof_attempts INTEGER NOT NULL DEFAULT 0,
    next_proof     INTEGER,
    -- The request whose report is waited for.
    request_id     INTEGER REFERENCES proof_request (id),
    -- What says that the peer has lost the object, until it is queued again or given up.
    missing        TEXT,
    -- How often it was sent again because the peer had lost it.
    resends        INTEGER NOT NULL DEFAULT 0,
    proven_at      INTEGER,
    UNIQUE (object_id, destination),
    UNIQUE (instance_id, destination),
    CHECK ((object_id IS NULL) != (instance_id IS NULL))
) STRICT;

INSERT INTO outbox_proven (id, study_id, object_id, destination, status, urgent, attempts, queued_at, next_attempt,
    finished_at, last_words)
SELECT d.id, o.study_id, d.object_id, d.destination, d.status, d.urgent, d.attempts, d.queued_at, d.next_attempt,
    d.finished_at, d.last_words
FROM outbox d JOIN object o ON o.id = d.object_id;

DROP TABLE outbox;
ALTER TABLE outbox_proven RENAME TO outbox;

CREATE INDEX outbox_due ON outbox (destination, status, next_attempt);
CREATE INDEX outbox_order ON outbox (destination, status, urgent DESC, queued_at, id);
CREATE INDEX outbox_study ON outbox (study_id, id);
CREATE INDEX outbox_proof ON outbox (destination, proof, next_proof) WHERE proof IS NOT NULL;
CREATE INDEX outbox_request ON outbox (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE proof_request_item (
    request_id  INTEGER NOT NULL REFERENCES proof_request (id),
    delivery_id INTEGER NOT NULL REFERENCES outbox (id),
    -- Failure Reason (0008,1197) as it was reported.
    failure     INTEGER,
    PRIMARY KEY (request_id, delivery_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX proof_request_item_delivery ON proof_request_item (delivery_id);

-- A delivery with what it delivers.
CREATE VIEW delivery AS
SELECT d.*, COALESCE(o.kind, 'source') AS kind, COALESCE(o.sop_class, i.sop_class) AS sop_class,
    COALESCE(o.sop_instance, i.sop_instance) AS sop_instance,
    COALESCE(o.series_instance, (SELECT series_instance FROM series WHERE id = i.series_id)) AS series_instance,
    COALESCE(o.transfer_syntax, i.transfer_syntax) AS transfer_syntax, COALESCE(o.blob, i.blob) AS blob,
    COALESCE(o.size, i.size) AS size
FROM outbox d
LEFT JOIN object o ON o.id = d.object_id
LEFT JOIN instance i ON i.id = d.instance_id;
