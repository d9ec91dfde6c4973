-- Users of an OpenID provider: made at their first login, known by issuer and subject, without a password.
ALTER TABLE admin_user ADD COLUMN source TEXT NOT NULL DEFAULT 'local' CHECK (source IN ('local', 'oidc'));

-- Issuer and subject, as JSON; null of a local user.
ALTER TABLE admin_user ADD COLUMN subject TEXT;

CREATE UNIQUE INDEX admin_user_subject ON admin_user (subject) WHERE subject IS NOT NULL;
