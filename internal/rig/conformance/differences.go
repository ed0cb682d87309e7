// Package conformance runs the daemon and the original side by side and compares
// them. make conformance runs its tests, which need Node and the original.
package conformance

// Difference is one behaviour in which the daemon differs from the original on
// purpose. The README of this package lists each Difference.
type Difference struct {
	Name     string // identifies the Difference in the tests
	Original string // what the original does
	Ours     string // what the daemon does
	Why      string

	// NotCompared says why the tests cannot show the Difference. It is empty if
	// they do.
	NotCompared string
}

// Differences lists every Difference. The tests accept these and no others.
var Differences = []Difference{
	// What is counted.
	{"JavaScript's own keys", "`__proto__` is never counted; `constructor`, `toString` and the like are sent as source code", "counted like any other key", "the original keeps the counts in a JavaScript object", ""},
	{"order of keys", "integer-like keys first, then in the order of their first hits", "sorted by their bytes", "the same counts always make the same log and the same body", ""},

	// Which requests are answered, and how.
	{"targets that net/http refuses", "404, or the pixel without a count: a broken escape in the path or the fragment, an invalid host", "400", "net/http parses the target before any handler runs; of these targets, the original counts only those with a host such as `[::1].`", ""},
	{"targets that Node trips over", "no answer", "400 or 404; where only the host is invalid, the path decides", "Node's URL parser throws an exception", ""},
	{"user and host in the path", "`//user@host/pixel.gif` is counted", "404", "the original counts it by accident: Node takes the start of the path for a host", ""},
	{"other schemes", "`ftp://host/pixel.gif` is counted", "404", "the original counts it by accident", ""},
	{"malformed requests", "counts requests with an empty line first, two spaces, two Host headers, an invalid Host, HTTP/0.9 or HTTP/2.0 in plain text, an unknown transfer coding, or an unknown Expect over HTTP/1.0", "counts requests with lines that end in LF, HTTP/1.2, folded headers, a length beside chunks or beside a second length, or an empty Expect", "the parsers of Node and net/http differ here; no browser sends such requests", ""},
	{"CONNECT", "the connection is closed", "400", "a pixel is not a proxy", ""},
	{"header size", "431 from 16,384 bytes on", "accepts up to 4 KiB more; refuses thousands of short headers sooner; over HTTP/2, refuses without an answer", "net/http counts the separators, too", ""},
	{"kept connections", "closed after 6 idle seconds; answers have a `Keep-Alive` header", "closed after 75 idle seconds, as in nginx", "later events of a page find the connection open", ""},
	{"after Expect", "the connection is kept", "the connection is closed after the answer", "net/http does not wait for the body", ""},
	{"embedding policy", "no such header", "`Cross-Origin-Resource-Policy: cross-origin`", "without the header, pages with `Cross-Origin-Embedder-Policy: require-corp` do not load the pixel", ""},
	{"HTTP/2", "HTTP/1.1 only", "also HTTP/2 over TLS", "net/http brings it", ""},

	// The flush.
	{"parts of the endpoint's URL", "query and `user:password@` are dropped", "the query is sent; `user:password@` becomes Basic authentication, and the log hides the password and the values of the query", "this is what the URL means", ""},
	{"endpoint that hangs", "the counts of the flush are lost", "the flush fails after 60 seconds or one interval, whichever is longer, but ten minutes at most", "no count is lost", "it takes a minute"},
	{"answer and reset", "after a 200 and a reset the counts are sent again; after a 500 and a reset they are doubled", "the status line decides, once", "no count is lost or doubled", ""},
	{"101", "the counts are lost", "the flush fails", "no count is lost", ""},
	{"reasons of a failed connection", "empty, or Node's words", "Go's words, except for `ECONNREFUSED`, `ECONNRESET`, `ENOTFOUND` and `socket hang up`", "the two runtimes word errors differently", ""},
	{"one flush at a time", "flushes overlap", "a flush waits for the end of the one before it", "a slow application gets one flush at a time", ""},

	// The log and the command line.
	{"control characters in a key", "logged as they are: `%0A` in a key forges a line", "escaped in the log: `\\u000a`", "clients must not write lines of the log", ""},
	{"announcement", "prints where the hits are flushed to", "prints the address of the pixel too, once it listens", "the line shows the port, and that the start worked", ""},
	{"version", "0.1.6", "a number of its own", "it is another program", ""},
	{"configuration that can not be read", "a stack trace", "one line with the name of the file; for JSON, also line and column", "people read it", ""},

	// Start and stop.
	{"senseless settings", "no `interval`: a flush every millisecond; no `port`: any free one; `\"discard\": \"false\"`: true; an `endpoint` that is no URL: posts elsewhere", "refused, exit 1", "these are mistakes", ""},
	{"long intervals", "above 24.8 days: a flush every millisecond", "work as written", "Node's timers overflow", ""},
	{"unknown settings", "ignored", "ignored, with a warning", "the name may be misspelt", ""},
	{"settings that are there twice, further arguments", "the last value counts; arguments are ignored", "the same, with a warning", "they may be mistakes", "the tests of cmd/pixel-ping and internal/config show it"},
	{"port taken", "runs on without a server", "exit 1", "whoever starts the daemon sees it", ""},
	{"certificate that does not load", "exit 0; with only one of key and certificate, plain HTTP", "exit 1", "whoever starts the daemon sees it", ""},
	{"names with several addresses", "binds the first address", "binds all addresses", "`localhost` is reached over IPv4 and IPv6", "the machine may have one address"},
	{"unusual names of hosts", "`bücher.example` is converted; `127.1` is 127.0.0.1", "`bücher.example` is refused, and `127.1` is not found; write `xn--bcher-kva.example` and `127.0.0.1`", "the standard library converts neither", ""},
	{"memory", "grows as long as clients invent keys", "bounded by `maxmemory`; hits of new keys beyond it are not counted, and stderr says how many", "no client can exhaust the memory", ""},
	{"too large for the application", "after a 413 the same counts are sent again, and grow", "sent in halves, down to single keys", "no count is lost", ""},
	{"renewed certificates", "read at the start only", "read again within 10 seconds after a change", "a renewal needs no restart", "make soak shows it"},
	{"stop", "ends at once and loses what it holds", "delivers what it holds, within 9 seconds", "no count is lost", ""},
}
