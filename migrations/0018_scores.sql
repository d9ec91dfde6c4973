-- The distribution of what models say, by the hour: what drifts shows here before anybody reads the studies.
CREATE TABLE score_bin (
    model TEXT    NOT NULL,
    kind  TEXT    NOT NULL CHECK (kind IN ('study', 'slice')),
    -- Hours since 1970-01-01 UTC.
    hour  INTEGER NOT NULL,
    -- Tenths of the probability: 0 is below 0.1, 9 from 0.9 on.
    bin   INTEGER NOT NULL CHECK (bin BETWEEN 0 AND 9),
    count INTEGER NOT NULL,
    PRIMARY KEY (model, kind, hour, bin)
) STRICT, WITHOUT ROWID;
