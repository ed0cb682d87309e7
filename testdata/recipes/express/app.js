// This application receives the flushes of Pixel Ping and adds them up in
// PostgreSQL. It answers how often an e-mail or a page was opened, and when last.
// PGHOST, PGDATABASE and so on name the database; SECRET is the secret.
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import express from 'express';
import pg from 'pg';

const { SECRET, HOST = '127.0.0.1', PORT = '3000' } = process.env;
if (!SECRET) throw new Error('set SECRET to the secret in the configuration of pixel-ping');

// The daemon waits for a minute, and then sends the same counts again. What is
// saved after that minute is counted twice, so the time limits here are shorter.
const pool = new pg.Pool({ connectionTimeoutMillis: 5_000, statement_timeout: 30_000, query_timeout: 40_000 });
// Without this handler, a stop of the database would end the application.
pool.on('error', (err) => console.error(err));

const sha256 = (text) => createHash('sha256').update(text).digest();

// One statement is one transaction. It adds nothing if the id of the flush is known:
// the flush was saved before, and only its answer was lost. All flushes update rows
// in the same order; otherwise those of two daemons could deadlock.
const add = `
	WITH old AS (
		DELETE FROM flushes WHERE saved < now() - interval '7 days' AND id <> $4
	), new AS (
		INSERT INTO flushes (id) VALUES ($4) ON CONFLICT DO NOTHING RETURNING id
	)
	INSERT INTO hits (id, key, count, first_seen, last_seen)
	SELECT flush.id, key, count, now(), now()
	FROM new, unnest($1::bytea[], $2::text[], $3::bigint[]) AS flush (id, key, count)
	ORDER BY flush.id
	ON CONFLICT (id) DO UPDATE SET
		count = hits.count + excluded.count,
		first_seen = least(hits.first_seen, excluded.first_seen),
		last_seen = greatest(hits.last_seen, excluded.last_seen)`;

const app = express();

// Express answers a body above the limit with 413. The daemon then sends the
// counts in parts. A key alone can take 130 kB.
app.post('/save_hits', express.urlencoded({ extended: false, limit: '16mb' }), async (req, res) => {
	const { json, secret } = req.body ?? {};
	if (typeof json !== 'string' || typeof secret !== 'string') return res.sendStatus(400);
	if (!timingSafeEqual(sha256(secret), sha256(SECRET))) return res.sendStatus(403);
	const hits = parse(json);
	if (hits === undefined) return res.sendStatus(400);
	const keys = hits.map(([key]) => key);
	const counts = hits.map(([, count]) => count);
	// A flush from something else than the daemon may have no id: then it is new.
	const id = req.get('Idempotency-Key') ?? randomUUID();
	await pool.query(add, [keys.map(sha256), keys.map((key) => key.replaceAll('\0', '\\u0000')), counts, id]);
	res.sendStatus(204); // after the hits are saved, not before
});

// parse returns the keys and counts of a flush, or undefined if json is invalid.
function parse(json) {
	try {
		const flush = JSON.parse(json);
		const hits = Object.entries(flush);
		const counted = hits.every(([, count]) => Number.isSafeInteger(count) && count > 0);
		return counted && typeof flush === 'object' && !Array.isArray(flush) ? hits : undefined;
	} catch {
		return undefined;
	}
}

// Answers how often the pixel with this key was loaded, and when.
app.get('/opened/:key', async (req, res) => {
	const query = 'SELECT count, first_seen, last_seen FROM hits WHERE id = $1';
	const { rows } = await pool.query(query, [sha256(req.params.key)]);
	if (rows.length === 0) return res.status(404).json({ count: 0 });
	const [{ count, first_seen: first, last_seen: last }] = rows;
	res.json({ count: Number(count), first, last });
});

// After an error status the daemon sends the counts again.
app.use((err, req, res, next) => {
	if (!err.status) console.error(err);
	res.sendStatus(err.status ?? 500);
});

app.listen(PORT, HOST, (err) => {
	if (err) throw err;
	console.log(`Saving hits at http://${HOST}:${PORT}/save_hits`);
});
