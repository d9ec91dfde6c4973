-- Tasks are listed by state, by list and by study, the newest first.
CREATE INDEX task_in_state ON task (status, id);
CREATE INDEX task_of_list ON task (list, id);
CREATE INDEX task_of_study ON task (study_instance, id);

-- What an OpenID provider calls a session that it brought about, and what is shown to it at logout.
ALTER TABLE admin_session ADD COLUMN is_provided INTEGER NOT NULL DEFAULT 0 CHECK (is_provided IN (0, 1));
ALTER TABLE admin_session ADD COLUMN sid TEXT;
ALTER TABLE admin_session ADD COLUMN id_token TEXT;

-- Users whom a provider vouches for have no password: all their sessions are the provider's, and it can end those of before, too.
UPDATE admin_session SET is_provided = 1 WHERE user_id IN (SELECT id FROM admin_user WHERE subject IS NOT NULL);

CREATE INDEX admin_session_sid ON admin_session (sid) WHERE sid IS NOT NULL;
