-- The order of analysis. Null: not decided; it counts as routine.
ALTER TABLE analysis ADD COLUMN urgent INTEGER CHECK (urgent IN (0, 1));
-- The rule that makes it urgent.
ALTER TABLE analysis ADD COLUMN urgent_by TEXT;

CREATE INDEX analysis_undecided ON analysis (id) WHERE urgent IS NULL AND status = 'queued';
