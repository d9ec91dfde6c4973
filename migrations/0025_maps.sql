-- Attribution maps of the positive slices of an analysis that came out positive: one file an analysis, in it a grey PNG a slice,
-- one after the other.
CREATE TABLE attribution_map (
    analysis_id INTEGER PRIMARY KEY REFERENCES analysis (id),
    study_id    INTEGER NOT NULL REFERENCES study (id),
    created_at  INTEGER NOT NULL,
    blob        TEXT    NOT NULL UNIQUE,
    size        INTEGER NOT NULL,
    -- BLAKE3 of the file.
    digest      BLOB    NOT NULL,
    -- Since when the file is no longer kept.
    removed_at  INTEGER
) STRICT;

CREATE INDEX attribution_map_study ON attribution_map (study_id);

-- Where in the file the slice's PNG begins and how long it is; null: it has none.
ALTER TABLE slice_score ADD COLUMN map_offset INTEGER;
ALTER TABLE slice_score ADD COLUMN map_bytes INTEGER;
