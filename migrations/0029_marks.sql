-- What those who look after the studies ask for: on hold, alerted, with something that was given up.

-- How many of its deliveries and messages are dead. Triggers count; whoever makes their tables anew makes them anew, too.
ALTER TABLE study ADD COLUMN given_up INTEGER NOT NULL DEFAULT 0;
UPDATE study SET given_up = (SELECT COUNT(*) FROM outbox WHERE outbox.study_id = study.id AND outbox.status = 'dead')
    + (SELECT COUNT(*) FROM message WHERE message.study_id = study.id AND message.status = 'dead')
WHERE id IN (SELECT study_id FROM outbox WHERE status = 'dead' UNION SELECT study_id FROM message WHERE status = 'dead');

-- Nothing is dead when it is queued first, and no row of these is ever deleted.
CREATE TRIGGER outbox_gives_up AFTER UPDATE OF status ON outbox WHEN new.status = 'dead' AND old.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up + 1 WHERE id = new.study_id;
END;
CREATE TRIGGER outbox_is_revived AFTER UPDATE OF status ON outbox WHEN old.status = 'dead' AND new.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up - 1 WHERE id = new.study_id;
END;
CREATE TRIGGER message_gives_up AFTER UPDATE OF status ON message WHEN new.status = 'dead' AND old.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up + 1 WHERE id = new.study_id;
END;
CREATE TRIGGER message_is_revived AFTER UPDATE OF status ON message WHEN old.status = 'dead' AND new.status != 'dead' BEGIN
    UPDATE study SET given_up = given_up - 1 WHERE id = new.study_id;
END;

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
