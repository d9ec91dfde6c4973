-- Series are asked for by their UID, without their study (QIDO-RS).
CREATE INDEX series_instance_uid ON series (series_instance);
CREATE INDEX object_series ON object (series_instance);
