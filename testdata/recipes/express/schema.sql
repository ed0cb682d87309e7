-- id is the SHA-256 of the key, since a key may be too long for an index.
-- PostgreSQL's text cannot hold a NUL; key has \u0000 in its place.
CREATE TABLE hits (
	id bytea PRIMARY KEY,
	key text NOT NULL,
	count bigint NOT NULL,
	first_seen timestamptz NOT NULL,
	last_seen timestamptz NOT NULL
);

-- The ids of the flushes that are saved, for 7 days: a flush whose answer was lost
-- comes again under its id.
CREATE TABLE flushes (
	id text PRIMARY KEY,
	saved timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON flushes (saved);
