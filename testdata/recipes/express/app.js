// This application receives the flushes of Pixel Ping and adds them up in
// PostgreSQL. It answers how often an e-mail or a page was opened, and when last, and
// serves a page with the most-hit keys. PGHOST, PGDATABASE and so on name the database;
// SECRET is the secret; LOGIN, as user:password, opens the page.
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import express from 'express';
import pg from 'pg';
import { overview, single } from './page.js';

const { SECRET, LOGIN, HOST = '127.0.0.1', PORT = '3000' } = process.env;
if (!SECRET) throw new Error('set SECRET to the secret in the configuration of pixel-ping');
if (LOGIN !== undefined && !/^[^:]+:./s.test(LOGIN)) throw new Error('set LOGIN to user:password');

// The daemon waits for an answer for a minute, so the application gives up earlier.
const pool = new pg.Pool({ connectionTimeoutMillis: 5_000, query_timeout: 40_000 });
// Without this handler, a stop of the database would end the application.
pool.on('error', (err) => console.error(err));

const sha256 = (text) => createHash('sha256').update(text).digest();

// It adds nothing if the id of the flush is known: the flush was saved before, and only
// its answer was lost. All flushes update rows in the same order; otherwise those of two
// daemons could deadlock.
const add = `
	WITH old AS (
		DELETE FROM flushes WHERE saved < now() - interval '7 days' AND id <> $4
	), new AS (
		INSERT INTO flushes (id) VALUES ($4) ON CONFLICT DO NOTHING RETURNING id
	)
	INSERT INTO hits (id, day, key, count, first_seen, last_seen)
	SELECT flush.id, current_date, key, count, now(), now()
	FROM new, unnest($1::bytea[], $2::text[], $3::bigint[]) AS flush (id, key, count)
	ORDER BY flush.id
	ON CONFLICT (id, day) DO UPDATE SET
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
	const keys = [...hits.keys()];
	// A flush from something else than the daemon may have no id: then it is new.
	const id = req.get('Idempotency-Key') ?? randomUUID();
	await save([keys.map(sha256), keys.map((key) => key.replaceAll('\0', '\\u0000')), [...hits.values()], id]);
	res.sendStatus(204); // after the hits are saved, not before
});

// save adds a flush in one transaction: completely, or not at all. The time limit is set
// in the transaction, since PgBouncer refuses a connection that begins with one.
async function save(flush) {
	const client = await pool.connect();
	try {
		await client.query("BEGIN; SET LOCAL statement_timeout = '30s'");
		await client.query(add, flush);
		await client.query('COMMIT');
		client.release();
	} catch (err) {
		client.release(err); // closes the connection, which ends the transaction
		throw err;
	}
}

// parse returns a map of the keys and counts of a flush, or undefined if json is invalid.
function parse(json) {
	try {
		const flush = JSON.parse(json);
		if (typeof flush !== 'object' || Array.isArray(flush)) return undefined;
		const hits = new Map();
		for (const [text, count] of Object.entries(flush)) {
			if (!Number.isSafeInteger(count) || count <= 0) return undefined;
			const key = Buffer.from(text).toString(); // a half of a surrogate pair becomes U+FFFD
			hits.set(key, (hits.get(key) ?? 0) + count);
		}
		return hits;
	} catch {
		return undefined;
	}
}

// Answers how often the pixel with this key was loaded, and when.
app.get('/opened/:key', async (req, res) => {
	const query = 'SELECT sum(count) AS count, min(first_seen) AS first, max(last_seen) AS last FROM hits WHERE id = $1';
	const { rows: [{ count, first, last }] } = await pool.query(query, [sha256(req.params.key)]);
	if (count === null) return res.status(404).json({ count: 0 });
	res.json({ count: Number(count), first, last });
});

// What follows is for people: it is there if LOGIN is set, and asks for it. The pages
// need no scripts and nothing from elsewhere, so the policy forbids both.
app.use((req, res, next) => {
	if (LOGIN === undefined) return res.sendStatus(404);
	const [scheme, credentials = ''] = (req.get('Authorization') ?? '').split(' ');
	const login = Buffer.from(credentials, 'base64');
	if (scheme.toLowerCase() !== 'basic' || !timingSafeEqual(sha256(login), sha256(LOGIN))) {
		return res.set('WWW-Authenticate', 'Basic realm="hits", charset="UTF-8"').sendStatus(401);
	}
	res.set({
		'Cache-Control': 'no-store',
		'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
		'Referrer-Policy': 'no-referrer',
		'X-Content-Type-Options': 'nosniff',
	});
	next();
});

// The periods of the page, in days. Today is one of them.
const periods = [7, 30];

// The hits of each day of the longest period, of all keys or of one. The series has the
// type timestamp: in some time zones a day of summer time has no midnight, and a series
// with a time zone would be an hour late from then on and miss today.
const perDay = (condition) => `
	SELECT days.day::date::text AS day, coalesce(sum(count), 0) AS count
	FROM generate_series((current_date - 29)::timestamp, current_date::timestamp, interval '1 day') AS days (day)
	LEFT JOIN hits ON hits.day = days.day::date AND hits.day > current_date - 30 ${condition}
	GROUP BY days.day ORDER BY days.day`;
const ofAll = perDay('');
const ofOne = perDay('AND id = $1');

// The key of an id is the same in all rows, so it is looked up for the keys on the page
// only.
const mostHit = `
	SELECT encode(id, 'hex') AS id, count, (SELECT key FROM hits WHERE id = most.id LIMIT 1) AS key
	FROM (
		SELECT id, sum(count) AS count FROM hits WHERE day > current_date - $1::int
		GROUP BY id ORDER BY count DESC, id LIMIT 20
	) AS most`;

// total returns the hits of the last days of what perDay returned.
const total = (days, length) => days.slice(-length).reduce((sum, { count }) => sum + BigInt(count), 0n);

app.get('/', async (req, res) => {
	const { rows: days } = await pool.query(ofAll);
	res.send(overview(days, await Promise.all(periods.map(async (length) => {
		const { rows: keys } = await pool.query(mostHit, [length]);
		return { length, total: total(days, length), keys };
	}))));
});

app.get('/keys/:id', async (req, res) => {
	const id = Buffer.from(req.params.id, 'hex');
	const { rows: [found] } = await pool.query('SELECT key FROM hits WHERE id = $1 LIMIT 1', [id]);
	if (!found) return res.sendStatus(404);
	const { rows: days } = await pool.query(ofOne, [id]);
	res.send(single(found.key, days, periods.map((length) => ({ length, total: total(days, length) }))));
});

// After an error status the daemon sends the counts again.
app.use((err, req, res, next) => {
	if (!err.status) console.error(err);
	res.sendStatus(err.status ?? 500);
});

app.listen(PORT, HOST, (err) => {
	if (err) throw err;
	console.log(`Saving hits at http://${HOST}:${PORT}/save_hits`);
	if (LOGIN !== undefined) console.log(`Showing them at http://${HOST}:${PORT}/`);
});
