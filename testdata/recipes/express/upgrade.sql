-- Turns the table of the application before version 1.1 into those of schema.sql. The
-- old table has no days: its counts become those of the day when each key was last seen.
BEGIN;
ALTER TABLE hits ADD day date;
UPDATE hits SET day = last_seen::date;
ALTER TABLE hits DROP CONSTRAINT hits_pkey, ADD PRIMARY KEY (id, day);
CREATE INDEX ON hits (day);
CREATE TABLE flushes (
	id text PRIMARY KEY,
	saved timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON flushes (saved);
COMMIT;
