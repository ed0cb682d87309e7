-- id is the SHA-256 of the key: a key may be longer than what an index takes. In
-- the text of a key PostgreSQL has no NUL, which stands there as \u0000.
CREATE TABLE hits (
	id bytea PRIMARY KEY,
	key text NOT NULL,
	count bigint NOT NULL,
	first_seen timestamptz NOT NULL,
	last_seen timestamptz NOT NULL
);
