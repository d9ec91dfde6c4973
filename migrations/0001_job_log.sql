-- Job log and index. Times are milliseconds since 1970-01-01 UTC. A migration is never edited once it has landed.

-- "ICHR": tells our database from somebody else's before anything is written to it.
PRAGMA application_id = 0x49434852;

CREATE TABLE association (
    id           INTEGER PRIMARY KEY,
    peer_address TEXT    NOT NULL,
    calling_ae   TEXT    NOT NULL,
    called_ae    TEXT    NOT NULL,
    opened_at    INTEGER NOT NULL,
    closed_at    INTEGER,
    outcome      TEXT,
    instances    INTEGER,
    bytes        INTEGER
) STRICT;

CREATE INDEX association_open ON association (id) WHERE closed_at IS NULL;

CREATE TABLE study (
    id                INTEGER PRIMARY KEY,
    study_instance    TEXT    NOT NULL UNIQUE,
    patient_id        TEXT,
    patient_name      TEXT,
    accession_number  TEXT,
    study_date        TEXT,
    description       TEXT,
    source_ae         TEXT,
    status            TEXT    NOT NULL
        CHECK (status IN ('receiving', 'queued', 'analysing', 'analysed', 'not-analysed', 'failed')),
    -- The last closed version; 0 before the first close.
    version           INTEGER NOT NULL DEFAULT 0,
    quiet_until       INTEGER,
    quiet_period      INTEGER NOT NULL DEFAULT 0,
    received_at       INTEGER NOT NULL,
    last_instance_at  INTEGER NOT NULL,
    instances         INTEGER NOT NULL DEFAULT 0,
    bytes             INTEGER NOT NULL DEFAULT 0,
    -- Why the present status is what it is (not analysed, failed).
    reason_code       TEXT,
    reason_text       TEXT,
    -- What the newest finished version came to.
    result_version    INTEGER,
    positive          INTEGER CHECK (positive IN (0, 1)),
    probability       REAL,
    volume_ml         REAL,
    model             TEXT,
    analysed_at       INTEGER,
    CHECK ((status = 'receiving') = (quiet_until IS NOT NULL))
) STRICT;

CREATE INDEX study_quiet ON study (quiet_until) WHERE status = 'receiving';
-- Covers what lists filter by, so that an unselective filter reads the index alone.
CREATE INDEX study_received ON study (received_at DESC, id DESC, study_date, status, positive, source_ae);
CREATE INDEX study_status ON study (status, received_at DESC, id DESC);
CREATE INDEX study_patient ON study (patient_id, received_at DESC, id DESC);
CREATE INDEX study_accession ON study (accession_number, received_at DESC, id DESC);
CREATE INDEX study_date ON study (study_date, received_at DESC, id DESC);
CREATE INDEX study_positive ON study (positive, received_at DESC, id DESC);
CREATE INDEX study_source ON study (source_ae, received_at DESC, id DESC);

CREATE TABLE series (
    id              INTEGER PRIMARY KEY,
    study_id        INTEGER NOT NULL REFERENCES study (id),
    series_instance TEXT    NOT NULL,
    modality        TEXT,
    description     TEXT,
    number          INTEGER,
    UNIQUE (study_id, series_instance)
) STRICT;

CREATE TABLE instance (
    id              INTEGER PRIMARY KEY,
    study_id        INTEGER NOT NULL REFERENCES study (id),
    series_id       INTEGER NOT NULL REFERENCES series (id),
    association_id  INTEGER REFERENCES association (id),
    sop_instance    TEXT    NOT NULL UNIQUE,
    sop_class       TEXT    NOT NULL,
    transfer_syntax TEXT    NOT NULL,
    source_ae       TEXT,
    received_at     INTEGER NOT NULL,
    -- One of our own results coming back: kept, never analysed.
    own             INTEGER NOT NULL CHECK (own IN (0, 1)),
    blob            TEXT    NOT NULL UNIQUE,
    size            INTEGER NOT NULL,
    -- BLAKE3 of the data set as received, without the File Meta Information.
    digest          BLOB    NOT NULL
) STRICT;

CREATE INDEX instance_study ON instance (study_id, own, series_id);
CREATE INDEX instance_association ON instance (association_id, study_id);

-- Other contents under a SOP Instance UID that is already there.
CREATE TABLE conflict (
    id              INTEGER PRIMARY KEY,
    instance_id     INTEGER NOT NULL REFERENCES instance (id),
    association_id  INTEGER REFERENCES association (id),
    transfer_syntax TEXT    NOT NULL,
    source_ae       TEXT,
    received_at     INTEGER NOT NULL,
    blob            TEXT    NOT NULL UNIQUE,
    size            INTEGER NOT NULL,
    digest          BLOB    NOT NULL,
    UNIQUE (instance_id, digest)
) STRICT;

CREATE TABLE analysis (
    id          INTEGER PRIMARY KEY,
    study_id    INTEGER NOT NULL REFERENCES study (id),
    version     INTEGER NOT NULL,
    status      TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'superseded')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    queued_at   INTEGER NOT NULL,
    not_before  INTEGER NOT NULL,
    worker      TEXT,
    started_at  INTEGER,
    finished_at INTEGER,
    model       TEXT,
    -- JSON of the finding; null when the outcome is a reason.
    finding     TEXT,
    reason_code TEXT,
    reason_text TEXT,
    -- JSON array of [stage, milliseconds].
    timings     TEXT,
    UNIQUE (study_id, version)
) STRICT;

CREATE INDEX analysis_queue ON analysis (status, queued_at, id);

CREATE TABLE series_outcome (
    analysis_id     INTEGER NOT NULL REFERENCES analysis (id),
    series_instance TEXT    NOT NULL,
    chosen          INTEGER NOT NULL CHECK (chosen IN (0, 1)),
    -- JSON array of reasons.
    reasons         TEXT    NOT NULL,
    PRIMARY KEY (analysis_id, series_instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE slice_score (
    analysis_id   INTEGER NOT NULL REFERENCES analysis (id),
    position      INTEGER NOT NULL,
    sop_instance  TEXT    NOT NULL,
    probability   REAL    NOT NULL,
    masked_pixels INTEGER NOT NULL,
    PRIMARY KEY (analysis_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE object (
    id              INTEGER PRIMARY KEY,
    study_id        INTEGER NOT NULL REFERENCES study (id),
    analysis_id     INTEGER NOT NULL REFERENCES analysis (id),
    kind            TEXT    NOT NULL,
    sop_class       TEXT    NOT NULL,
    sop_instance    TEXT    NOT NULL UNIQUE,
    series_instance TEXT    NOT NULL,
    transfer_syntax TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    blob            TEXT    NOT NULL UNIQUE,
    size            INTEGER NOT NULL,
    digest          BLOB    NOT NULL
) STRICT;

CREATE INDEX object_study ON object (study_id);

CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY,
    object_id    INTEGER NOT NULL REFERENCES object (id),
    destination  TEXT    NOT NULL,
    status       TEXT    NOT NULL CHECK (status IN ('queued', 'sending', 'accepted', 'dead')),
    -- Positives go first.
    urgent       INTEGER NOT NULL CHECK (urgent IN (0, 1)),
    attempts     INTEGER NOT NULL DEFAULT 0,
    queued_at    INTEGER NOT NULL,
    next_attempt INTEGER NOT NULL,
    finished_at  INTEGER,
    -- What the peer, or the last failed attempt, said.
    last_words   TEXT,
    UNIQUE (object_id, destination)
) STRICT;

CREATE INDEX outbox_due ON outbox (destination, status, next_attempt);
CREATE INDEX outbox_order ON outbox (destination, status, urgent DESC, queued_at, id);

-- What happened, in words and for machines. Never a word about the patient.
CREATE TABLE event (
    id             INTEGER PRIMARY KEY,
    at             INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    text           TEXT    NOT NULL,
    detail         TEXT    NOT NULL,
    study_id       INTEGER REFERENCES study (id),
    association_id INTEGER REFERENCES association (id)
) STRICT;

CREATE INDEX event_study ON event (study_id, at, id) WHERE study_id IS NOT NULL;
CREATE INDEX event_association ON event (association_id, at, id) WHERE association_id IS NOT NULL;
