-- Who may look and act by HTTP, and what they looked at and did. Secrets are here as hashes only.

CREATE TABLE admin_user (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE COLLATE NOCASE,
    role          TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    -- Argon2id in PHC form; null until the invitation is taken up.
    password_hash TEXT,
    enabled       INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
    created_at    INTEGER NOT NULL
) STRICT;

-- One-time links: the first admin's, a new user's, a new password's.
CREATE TABLE admin_invitation (
    -- BLAKE3 of the secret in the link.
    hash       BLOB    PRIMARY KEY,
    -- Null: whoever takes it up becomes the first admin, if there is none yet.
    user_id    INTEGER REFERENCES admin_user (id),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE admin_session (
    -- BLAKE3 of the cookie.
    hash       BLOB    PRIMARY KEY,
    user_id    INTEGER NOT NULL REFERENCES admin_user (id),
    -- What a form or a script must repeat before anything is changed.
    csrf       TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX admin_session_user ON admin_session (user_id);
CREATE INDEX admin_session_end ON admin_session (expires_at);

CREATE TABLE admin_token (
    id         INTEGER PRIMARY KEY,
    -- BLAKE3 of the token.
    hash       BLOB    NOT NULL UNIQUE,
    user_id    INTEGER NOT NULL REFERENCES admin_user (id),
    label      TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;

-- Every change and every view of a patient's study. Rows are added and never touched again.
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    role       TEXT,
    address    TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    study_id   INTEGER REFERENCES study (id),
    -- JSON: what exactly.
    detail     TEXT    NOT NULL
) STRICT;

CREATE INDEX audit_study ON audit (study_id, id) WHERE study_id IS NOT NULL;
CREATE INDEX audit_actor ON audit (actor, id);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit trail is never changed');
END;
CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'the audit trail is never deleted');
END;
