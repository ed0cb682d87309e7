// Package conformance compares the daemon with the original, both running side
// by side. Its tests run only when they are asked for, by make conformance: they
// need Node and the original.
package conformance

// Difference is one thing that the daemon does otherwise than the original on
// purpose. The harness accepts these and no others, and the README lists each.
type Difference struct {
	Name     string
	Original string
	Ours     string
	Why      string

	// NotCompared says why the harness does not show it, if it does not.
	NotCompared string
}

// Differences are all there are.
var Differences = []Difference{
	// What is counted.
	{"JavaScript's own keys", "`__proto__` is never counted; `constructor`, `toString` and the like are sent as source code", "keys as any other", "the store of the original is a JavaScript object", ""},
	{"order of keys", "integer-like keys first, then as first seen", "by their bytes", "the same counts make the same log and the same body", ""},

	// Which requests are answered, and how.
	{"targets that net/http refuses", "404, or the pixel without a key: a broken escape in the path or in the fragment, a host that is none", "400", "net/http reads the target before any handler can; these are not counted in either, but for hosts such as `[::1].`", ""},
	{"targets that Node trips over", "no answer at all", "answered: with 400 or 404, or by the path behind a host that is none", "Node's URL parser throws an exception", ""},
	{"user and host in the path", "`//user@host/pixel.gif` is counted", "404", "by accident: Node takes the path for a host", ""},
	{"other schemes", "`ftp://host/pixel.gif` is counted", "404", "by accident", ""},
	{"malformed requests", "some are counted: an empty line first, two spaces, two Host headers, a Host that is none, HTTP/0.9 and HTTP/2.0 in plain text, unknown transfer codings, an unknown Expect over HTTP/1.0", "others are: lines that end in LF, HTTP/1.2, folded headers, a length beside chunks or another, an empty Expect", "it is what net/http's parser lets through; no browser sends them", ""},
	{"CONNECT", "the connection is closed", "400", "a pixel is no proxy", ""},
	{"header size", "431 from 16,384 bytes on", "up to 4 KiB more is accepted; thousands of short headers are refused sooner; HTTP/2 is cut off without an answer", "net/http counts what stands between them, too", ""},
	{"kept connections", "closed after 6 seconds, with a `Keep-Alive` header", "kept for 75 seconds", "a page's later events find the connection open, as with nginx", ""},
	{"after Expect", "the connection is kept", "it is closed after the answer", "net/http does not wait for the body", ""},
	{"embedding policy", "no word of it", "`Cross-Origin-Resource-Policy: cross-origin`", "pages with `Cross-Origin-Embedder-Policy: require-corp` load nothing without it", ""},
	{"HTTP/2", "HTTP/1.1 only", "HTTP/2 over TLS", "it comes with net/http", ""},

	// The flush.
	{"parts of the endpoint's URL", "query and `user:password@` are dropped", "sent, as what they are; the log shows no password and no value of the query", "it is what the URL says", ""},
	{"endpoint that hangs", "the counts of the flush are lost", "a failure after 60 seconds or one interval, whichever is longer", "no count is lost", "it takes a minute"},
	{"answer and reset", "a 200 before a reset is sent again, a 500 before a reset doubles the counts", "the status line decides, once", "no count is lost or doubled", ""},
	{"101", "the counts are lost", "a failure", "no count is lost", ""},
	{"reasons of a failed connection", "some reasons are empty or Node's own words", "Go's words, but for `ECONNREFUSED`, `ECONNRESET`, `ENOTFOUND` and `socket hang up`", "the system's words differ", ""},
	{"one flush at a time", "flushes overlap", "a flush waits for the one before it", "an application that is slow is not called twice at once", ""},

	// The log and the command line.
	{"control characters in a key", "logged as they are: `%0A` forges a line", "escaped in the log, as `\\u000a`", "clients do not write the log", ""},
	{"announcement", "where the hits are flushed to", "and, once it listens, the pixel's address", "it shows that the start has worked, and the port", ""},
	{"version", "0.1.6", "its own", "it is another program", ""},
	{"configuration that can not be read", "a stack trace", "one line with the file, and for JSON line and column", "to be read by people", ""},

	// Start and stop.
	{"senseless settings", "no `interval` flushes each millisecond, no `port` takes any, `\"port\": \"abc\"` is a Unix socket, `\"discard\": \"false\"` is true, an `endpoint` that is no URL posts elsewhere", "refused, exit 1", "they are mistakes", ""},
	{"long intervals", "above 24.8 days: each millisecond", "as long as it says", "Node's timers overflow", ""},
	{"unknown settings", "ignored", "ignored, with a warning", "they may be misspelt", ""},
	{"settings that are there twice, further arguments", "the last value counts; ignored", "the same, with a warning", "they may be mistakes", "the tests of cmd/pixel-ping and internal/config show it"},
	{"port taken", "lives on without a server", "exit 1; a Unix socket on which nobody listens is replaced", "whoever started it learns of it", ""},
	{"certificate that does not load", "exit 0, or plain HTTP if a part is missing", "exit 1", "whoever started it learns of it", ""},
	{"names with several addresses", "the first is bound", "all are bound", "`localhost` is found over IPv4 and IPv6", "the machine may have one address"},
	{"unusual names of hosts", "`bücher.example` is converted, `127.1` is 127.0.0.1", "the first is refused, the second not found: to be written as `xn--bcher-kva.example` and in full", "the standard library does neither", ""},
	{"memory", "grows for as long as anybody invents keys", "bounded by `maxmemory`; hits of new keys beyond it are not counted, and told", "nobody can bring the daemon down with keys", ""},
	{"too large for the application", "after a 413 the same batch is sent again, and only grows", "sent in halves, and these in halves", "no count is lost", ""},
	{"renewed certificates", "read at the start", "read again within 10 seconds after they have changed", "no restart is needed", "make soak shows it"},
	{"stop", "ends at once, and what it holds is lost", "delivered first", "no count is lost", ""},
}
