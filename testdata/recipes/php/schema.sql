-- The counts of each key.
CREATE TABLE hits (
	key TEXT PRIMARY KEY,
	count INTEGER NOT NULL
);
-- The ids of the flushes that are saved, for 7 days: a flush whose answer was lost
-- comes again under its id. saved is in seconds since 1970.
CREATE TABLE flushes (
	id TEXT PRIMARY KEY,
	saved INTEGER NOT NULL
);
CREATE INDEX flushes_saved ON flushes (saved);
