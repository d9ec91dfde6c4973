-- A slice is an instance, or a frame of a multi-frame instance.

-- The frame, counted from 1; null where the instance is one slice.
ALTER TABLE slice_score ADD COLUMN frame INTEGER CHECK (frame >= 1);

-- The key takes the frame in, so the table is made anew.
CREATE TABLE slice_probability_of_frames (
    instance_id INTEGER NOT NULL REFERENCES instance (id),
    -- The frame, counted from 1; 0 where the instance is one slice.
    frame       INTEGER NOT NULL CHECK (frame >= 0),
    -- Model and input, in words: the same words give the same probability.
    model       TEXT    NOT NULL,
    probability REAL    NOT NULL,
    -- Where the slice lies along its own normal, in mm.
    height_mm   REAL    NOT NULL,
    PRIMARY KEY (instance_id, model, frame)
) STRICT, WITHOUT ROWID;

INSERT INTO slice_probability_of_frames (instance_id, frame, model, probability, height_mm)
    SELECT instance_id, 0, model, probability, height_mm FROM slice_probability;
DROP TABLE slice_probability;
ALTER TABLE slice_probability_of_frames RENAME TO slice_probability;
