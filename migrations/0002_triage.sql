-- Slices classified as they arrive, and the alert that does not wait for the study.

-- What one model, fed in one way, says of one slice, before neighbours are made consistent.
CREATE TABLE slice_probability (
    instance_id INTEGER NOT NULL REFERENCES instance (id),
    -- Model and input, in words: the same words give the same probability.
    model       TEXT    NOT NULL,
    probability REAL    NOT NULL,
    -- Where the slice lies along its own normal, in mm.
    height_mm   REAL    NOT NULL,
    PRIMARY KEY (instance_id, model)
) STRICT, WITHOUT ROWID;

-- When the study was found suspicious before it was complete.
ALTER TABLE study ADD COLUMN alerted_at INTEGER;
