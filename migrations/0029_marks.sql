-- What those who look after the studies ask for: on hold, alerted, with something that was given up.

-- What was given up and nothing has taken its place. A later message of the study takes the place of another once it is
-- acknowledged; one without a result replaces no result, and what is said of a delivery replaces nothing and is replaced by
-- nothing. The plus leaves the index of states aside: a study has few messages.
CREATE VIEW given_up_message AS
SELECT m.id, m.study_id FROM message m
WHERE +m.status = 'dead' AND (m.subject = 'delivery-dead' OR NOT EXISTS (
    SELECT 1 FROM message l
    WHERE l.study_id = m.study_id AND l.channel = m.channel AND l.id > m.id AND +l.status = 'acknowledged'
        AND l.subject != 'delivery-dead'
        AND (l.subject NOT IN ('not-analysed', 'failed') OR m.subject IN ('not-analysed', 'failed'))));

-- How many of its deliveries are dead, and of its messages given up. Triggers count; whoever makes their tables anew makes
-- them anew, too.
ALTER TABLE study ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;
UPDATE study SET given_up = (SELECT COUNT(*) FROM outbox WHERE outbox.study_id = study.id AND outbox.status = 'dead')
    + (SELECT COUNT(*) FROM given_up_message WHERE given_up_message.study_id = study.id)
WHERE id IN (SELECT study_id FROM outbox WHERE status = 'dead' UNION SELECT study_id FROM message WHERE status = 'dead');

-- Nothing is dead when it is queued first, and no row of these is ever deleted.
CREATE TRIGGER outbox_gives_up AFTER UPDATE OF status ON outbox WHEN new.status = 'dead' AND old.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up + 1 WHERE id = new.study_id;
END;
CREATE TRIGGER outbox_is_revived AFTER UPDATE OF status ON outbox WHEN old.status = 'dead' AND new.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up - 1 WHERE id = new.study_id;
END;
-- What a message changes depends on others of its study: those of before are taken off, and those of afterwards added.
CREATE TRIGGER message_is_about_to_change BEFORE UPDATE OF status ON message
WHEN new.status != old.status AND (old.status = 'dead' OR new.status IN ('dead', 'acknowledged')) BEGIN
    UPDATE study SET given_up = given_up - (SELECT COUNT(*) FROM given_up_message WHERE study_id = new.study_id)
    WHERE id = new.study_id AND EXISTS (SELECT 1 FROM given_up_message WHERE study_id = new.study_id);
END;
CREATE TRIGGER message_has_changed AFTER UPDATE OF status ON message
WHEN new.status != old.status AND (old.status = 'dead' OR new.status IN ('dead', 'acknowledged')) BEGIN
    UPDATE study SET given_up = given_up + (SELECT COUNT(*) FROM given_up_message WHERE study_id = new.study_id)
    WHERE id = new.study_id AND EXISTS (SELECT 1 FROM given_up_message WHERE study_id = new.study_id);
END;

-- What waits or was given up for want of something, looked for before each message.
CREATE INDEX message_words ON message (channel, last_words) WHERE status != 'acknowledged';

-- In the order of either list, with what else is asked of it.
CREATE INDEX study_given_up ON study (received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE given_up > 0;
CREATE INDEX study_given_up_urgency
    ON study (urgency DESC, received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE given_up > 0;
CREATE INDEX study_on_hold ON study (received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE held_at IS NOT NULL;
CREATE INDEX study_on_hold_urgency
    ON study (urgency DESC, received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE held_at IS NOT NULL;
CREATE INDEX study_alerted ON study (received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE alerted_at IS NOT NULL;
CREATE INDEX study_alerted_urgency
    ON study (urgency DESC, received_at DESC, id DESC, study_date, status, positive, source_ae, reason_code)
    WHERE alerted_at IS NOT NULL;
