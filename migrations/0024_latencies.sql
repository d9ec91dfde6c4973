-- How long things take: counts by upper bound, raised in the transaction that ends what is measured. Counting begins with this migration.

CREATE TABLE latency (
    measure TEXT    NOT NULL,
    -- Whose: a channel or a destination; empty where there is but one.
    name    TEXT    NOT NULL,
    -- Of what: an outcome, a stage, a subject, a kind of object; empty where there is but one.
    of_what TEXT    NOT NULL,
    -- Took no longer than this, in milliseconds; 2⁶³ − 1: longer than every bound. The bound stands here, so that counts outlive
    -- a change of the program's bounds.
    upto_ms INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    sum_ms  INTEGER NOT NULL,
    PRIMARY KEY (measure, name, of_what, upto_ms)
) STRICT, WITHOUT ROWID;

-- Of an acknowledged message: since what it rests on. Null for those of before.
ALTER TABLE message ADD COLUMN latency_ms INTEGER;

-- When the peer accepted it first. Null for what was accepted before.
ALTER TABLE outbox ADD COLUMN accepted_at INTEGER;
