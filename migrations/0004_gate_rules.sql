-- What each rule of the gate said of a series: JSON array of rule outcomes, in the order of asking.
ALTER TABLE series_outcome ADD COLUMN rules TEXT NOT NULL DEFAULT '[]';
