<?php
// This application receives the flushes of Pixel Ping and adds them up in SQLite. Its
// environment, which hits.conf sets, has the SECRET and the file of the DATABASE.
declare(strict_types=1);

function answer(int $status): never
{
    http_response_code($status);
    exit;
}

// hits yields the keys and counts of a flush one by one. json_decode would put all keys
// into one array, and clients can choose keys with which PHP's arrays take minutes.
function hits(string $json): Generator
{
    $json = trim($json);
    if (preg_match('/^\{\s*\}$/', $json)) return;
    if (!str_starts_with($json, '{')) throw new InvalidArgumentException('not an object');
    $pair = '/\G\s*("(?:[^"\\\\]++|\\\\.)*+")\s*:\s*([1-9][0-9]{0,15})\s*([,}])/';
    for ($at = 1; preg_match($pair, $json, $found, 0, $at); ) {
        [$all, $key, $count, $next] = $found;
        yield text($key) => (int) $count;
        $at += strlen($all);
        if ($next === '}' && $at === strlen($json)) return;
        if ($next === '}') break;
    }
    throw new InvalidArgumentException('not an object of counts');
}

// text decodes a JSON string. JSON allows a half of a surrogate pair, which PHP refuses:
// U+FFFD takes its place.
function text(string $json): string
{
    $half = '/\\\\u d[89ab].. \\\\u d[c-f].. (*SKIP)(*FAIL) | \\\\\\\\ (*SKIP)(*FAIL) | \\\\u d[89a-f]../ix';
    return json_decode($json) ?? json_decode(preg_replace($half, '\ufffd', $json))
        ?? throw new InvalidArgumentException('not a string');
}

// save adds the counts and the id of a flush in one transaction. It adds nothing if the
// id is known: the flush was saved before, and only its answer was lost.
function save(Generator $hits, string $id): void
{
    $database = new PDO('sqlite:' . getenv('DATABASE'), options: [PDO::ATTR_TIMEOUT => 30]);
    $database->exec('BEGIN IMMEDIATE');
    $new = $database->prepare('INSERT OR IGNORE INTO flushes (id, saved) VALUES (?, unixepoch())');
    $new->execute([$id]);
    if ($new->rowCount() > 0) {
        $add = $database->prepare('INSERT INTO hits (key, count) VALUES (?, ?)
            ON CONFLICT (key) DO UPDATE SET count = count + excluded.count');
        foreach ($hits as $key => $count) $add->execute([$key, $count]);
        $database->exec("DELETE FROM flushes WHERE saved < unixepoch('now', '-7 days')");
    }
    $database->exec('COMMIT');
}

$limit = ini_parse_quantity(ini_get('post_max_size'));
if ($limit > 0 && (int) ($_SERVER['CONTENT_LENGTH'] ?? 0) > $limit) answer(413); // PHP gives no form then
$json = $_POST['json'] ?? null;
$secret = $_POST['secret'] ?? null;
if (!is_string($json) || !is_string($secret)) answer(400);
if (!hash_equals(getenv('SECRET') ?: throw new LogicException('SECRET is not set'), $secret)) answer(403);
try {
    // A flush from something else than the daemon may have no id: then it is new.
    save(hits($json), $_SERVER['HTTP_IDEMPOTENCY_KEY'] ?? bin2hex(random_bytes(16)));
} catch (InvalidArgumentException) {
    answer(400); // and the transaction ends with the connection: nothing of it is saved
}
answer(204); // after the hits are saved, not before
