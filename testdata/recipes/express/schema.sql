-- The counts of each key on each day, which is that of the flush. id is the SHA-256 of
-- the key, since a key may be too long for an index. PostgreSQL's text cannot hold a
-- NUL; key has \u0000 in its place.
CREATE TABLE hits (
	id bytea,
	day date,
	key text NOT NULL,
	count bigint NOT NULL,
	first_seen timestamptz NOT NULL,
	last_seen timestamptz NOT NULL,
	PRIMARY KEY (id, day)
);
-- For the page with the counts of the last days.
CREATE INDEX ON hits (day);

-- The ids of the flushes that are saved, for 7 days: a flush whose answer was lost
-- comes again under its id.
CREATE TABLE flushes (
	id text PRIMARY KEY,
	saved timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON flushes (saved);
