-- How far the volume of a result may be off: one standard deviation in mL, fitted on the model's validation studies.
-- NULL where the model's manifest gives none.
ALTER TABLE study ADD COLUMN volume_sd_ml REAL;
