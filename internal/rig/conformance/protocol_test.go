//go:build unix

package conformance

import (
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// statuses returns the statuses of the answers in text.
func statuses(text string) string {
	var all []string
	for _, match := range regexp.MustCompile(`HTTP/1\.[01] (\d+)`).FindAllStringSubmatch(text, -1) {
		all = append(all, match[1])
	}
	return strings.Join(all, " ")
}

// Both programs answer a request with the same status and count the same. Each
// test ends with a request after which both must close the connection.
func TestProtocol(t *testing.T) {
	theirs, ours := pair(t, nil)
	const (
		host  = " HTTP/1.1\r\nHost: x\r\n"
		close = "Connection: close\r\n\r\n"
		last  = "GET /last" + host + close
	)
	for _, test := range []struct{ name, difference, request string }{
		{"GET", "", "GET /pixel.gif?key=a" + host + close},
		{"HEAD", "", "HEAD /pixel.gif?key=a" + host + close},
		{"HEAD of no pixel", "", "HEAD /x?key=a" + host + close},
		{"POST", "", "POST /pixel.gif?key=a" + host + "Content-Length: 5\r\n" + close + "key=b"},
		{"POST of nothing", "", "POST /pixel.gif?key=a" + host + "Content-Length: 0\r\n" + close},
		{"PUT", "", "PUT /pixel.gif?key=a" + host + "Content-Length: 5\r\n" + close + "key=b"},
		{"DELETE", "", "DELETE /pixel.gif?key=a" + host + close},
		{"OPTIONS", "", "OPTIONS /pixel.gif?key=a" + host + close},
		{"OPTIONS *", "", "OPTIONS *" + host + close},
		{"PATCH", "", "PATCH /pixel.gif?key=a" + host + close},
		{"M-SEARCH", "", "M-SEARCH /pixel.gif?key=a" + host + close},
		{"TRACE", "", "TRACE /pixel.gif?key=a" + host + close},
		{"unknown method", "", "FOO /pixel.gif?key=a" + host + close},
		{"method in lower case", "", "get /pixel.gif?key=a" + host + close},
		{"PRI", "", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{"HTTP/1.0", "", "GET /pixel.gif?key=a HTTP/1.0\r\n\r\n"},
		{"HTTP/1.0 kept", "",
			"GET /pixel.gif?key=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /pixel.gif?key=b HTTP/1.0\r\n\r\n"},
		{"HTTP/1.0 not kept", "", "GET /pixel.gif?key=a HTTP/1.0\r\n\r\nGET /pixel.gif?key=b HTTP/1.0\r\n\r\n"},
		{"HTTP/1.2", "malformed requests", "GET /pixel.gif?key=a HTTP/1.2\r\nHost: x\r\n" + close},
		{"HTTP/3", "", "GET /pixel.gif?key=a HTTP/3\r\nHost: x\r\n" + close},
		{"no version", "malformed requests", "GET /pixel.gif?key=a\r\n\r\n"},
		{"no Host", "", "GET /pixel.gif?key=a HTTP/1.1\r\n" + close},
		{"empty Host", "", "GET /pixel.gif?key=a HTTP/1.1\r\nHost:\r\n" + close},
		{"pipelined", "",
			"GET /pixel.gif?key=a" + host + "\r\nGET /x" + host + "\r\nHEAD /pixel.gif?key=b" + host + "\r\n" + last},
		{"pipelined with bodies", "",
			"POST /pixel.gif?key=a" + host + "Content-Length: 3\r\n\r\nxyz" +
				"POST /pixel.gif?key=b" + host + "Content-Length: 1\r\n\r\nx" + last},
		{"chunks", "", "POST /pixel.gif?key=a" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n" + last},
		{"broken chunks and another request", "",
			"POST /pixel.gif?key=a" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + last},
		{"body", "",
			"POST /pixel.gif?key=a" + host + "Content-Length: 250000\r\n\r\n" + strings.Repeat("x", 250000) + last},
		{"long body", "long bodies",
			"POST /pixel.gif?key=a" + host + "Content-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1000000) + last},
		{"other Expect of HTTP/1.0", "malformed requests", "GET /pixel.gif?key=a HTTP/1.0\r\nExpect: more\r\n\r\n"},
		{"empty Expect", "malformed requests", "GET /pixel.gif?key=a" + host + "Expect:\r\n" + close},
		{"two equal lengths", "malformed requests",
			"POST /pixel.gif?key=a" + host + "Content-Length: 1\r\nContent-Length: 1\r\n" + close + "x"},
		{"folded header", "malformed requests", "GET /pixel.gif?key=a" + host + "X: y\r\n z\r\n" + close},
		{"thousands of headers", "header size", "GET /pixel.gif?key=a" + host + strings.Repeat("A: b\r\n", 3500) + close},
		{"broken chunks", "", "POST /pixel.gif?key=a" + host + "Transfer-Encoding: chunked\r\n" + close + "zz\r\n"},
		{"chunks and a length", "malformed requests",
			"POST /pixel.gif?key=a" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n" + close + "0\r\n\r\n"},
		{"invalid length", "", "POST /pixel.gif?key=a" + host + "Content-Length: x\r\n" + close},
		{"two lengths", "", "POST /pixel.gif?key=a" + host + "Content-Length: 1\r\nContent-Length: 2\r\n" + close},
		{"Expect", "", "GET /pixel.gif?key=a" + host + "Expect: 100-continue\r\n" + close},
		{"Expect with a body", "",
			"POST /pixel.gif?key=a" + host + "Expect: 100-continue\r\nContent-Length: 3\r\n" + close + "xyz"},
		{"Expect in capitals", "", "GET /pixel.gif?key=a" + host + "Expect: 100-CONTINUE\r\n" + close},
		{"other Expect", "", "GET /pixel.gif?key=a" + host + "Expect: more\r\n" + close},
		{"Expect of HTTP/1.0", "", "GET /pixel.gif?key=a HTTP/1.0\r\nExpect: 100-continue\r\n\r\n"},
		{"Expect and another request", "after Expect",
			"POST /pixel.gif?key=a" + host + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nxyz" + last},
		{"Range", "", "GET /pixel.gif?key=a" + host + "Range: bytes=0-1\r\n" + close},
		{"conditions", "",
			"GET /pixel.gif?key=a" + host + "If-None-Match: *\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n" + close},
		{"Upgrade", "", "GET /pixel.gif?key=a" + host + "Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"},
		{"header name with a space", "", "GET /pixel.gif?key=a" + host + "X Y: z\r\n" + close},
		{"header without a name", "", "GET /pixel.gif?key=a" + host + ": z\r\n" + close},
		{"lines ending in LF", "malformed requests", "GET /pixel.gif?key=a HTTP/1.1\nHost: x\nConnection: close\n\n"},
		{"empty line first", "malformed requests", "\r\nGET /pixel.gif?key=a" + host + close},
		{"two spaces", "malformed requests", "GET  /pixel.gif?key=a" + host + close},
		{"two Hosts", "malformed requests", "GET /pixel.gif?key=a" + host + "Host: y\r\n" + close},
		{"invalid Host", "malformed requests", "GET /pixel.gif?key=a HTTP/1.1\r\nHost: a b\r\n" + close},
		{"HTTP/0.9", "malformed requests", "GET /pixel.gif?key=a HTTP/0.9\r\nHost: x\r\n" + close},
		{"HTTP/2.0 in plain text", "malformed requests", "GET /pixel.gif?key=a HTTP/2.0\r\nHost: x\r\n" + close},
		{"unknown transfer coding", "malformed requests",
			"POST /pixel.gif?key=a" + host + "Transfer-Encoding: gzip\r\n" + close},
		{"CONNECT", "CONNECT", "CONNECT x:80" + host + close},
		{"headers too long", "", "GET /pixel.gif?key=a" + host + "X: " + strings.Repeat("x", 22000) + "\r\n" + close},
		{"many headers", "", "GET /pixel.gif?key=a" + host + strings.Repeat("X: y\r\n", 98) + close}, // 100 with host and close
	} {
		compared.requests.Add(1)
		a, b := theirs.send(t, test.request), ours.send(t, test.request)
		outcomes := [2]string{
			fmt.Sprintf("%s, counted as %v", statuses(a), theirs.counts(t)),
			fmt.Sprintf("%s, counted as %v", statuses(b), ours.counts(t)),
		}
		switch same := outcomes[0] == outcomes[1]; {
		case test.difference == "" && !same:
			t.Errorf("%s\n\toriginal: %s\n\tours:     %s", test.name, outcomes[0], outcomes[1])
		case test.difference != "" && same:
			t.Errorf("%s: %s from both, want the listed difference %q", test.name, outcomes[0], test.difference)
		case test.difference != "":
			differ(t, test.difference)
		}
	}
}

// Only the original announces when it closes an idle connection, and only ours
// sends Cross-Origin-Resource-Policy.
func TestKeptConnections(t *testing.T) {
	theirs, ours := pair(t, nil)
	const two = "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\nGET /pixel.gif HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	a, b := theirs.send(t, two), ours.send(t, two)
	if !strings.Contains(a, "Keep-Alive: timeout=5") || strings.Contains(b, "Keep-Alive: ") {
		t.Errorf("original:\n%s\nours:\n%s", a, b)
	}
	differ(t, "kept connections")
	const policy = "Cross-Origin-Resource-Policy: cross-origin\r\n"
	if strings.Contains(a, policy) || strings.Count(b, policy) != 2 {
		t.Errorf("original:\n%s\nours:\n%s", a, b)
	}
	differ(t, "embedding policy")
}

// Over TLS, both programs serve the same pixel, with HTTP/1.1. Only ours refuses to start
// with a certificate that does not load.
func TestHTTPS(t *testing.T) {
	directory := t.TempDir()
	rig.WriteCertificate(t, directory)
	theirs, ours := pair(t, map[string]any{
		"sslkey": filepath.Join(directory, "key.pem"), "sslcert": filepath.Join(directory, "cert.pem"),
	})
	protocols := make(map[string]string)
	answers := make(map[string]answer)
	for _, s := range []*side{theirs, ours} {
		for _, offered := range [][]string{{"http/1.1"}, {"h2", "http/1.1"}, {"h2"}} {
			conn, err := tls.Dial("tcp", s.Address, &tls.Config{InsecureSkipVerify: true, NextProtos: offered})
			if err != nil {
				protocols[s.name] += "none "
				continue
			}
			defer conn.Close()
			if len(offered) == 1 {
				fmt.Fprint(conn, "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				all, err := io.ReadAll(conn)
				if err != nil {
					t.Fatal(err)
				}
				answers[s.name] = parseAnswer(string(all))
			}
			protocols[s.name] += conn.ConnectionState().NegotiatedProtocol + " "
		}
	}
	if answers["original"] != answers["ours"] || answers["ours"].status != "200" {
		t.Errorf("original: %v\nours: %v", answers["original"], answers["ours"])
	}
	if protocols["original"] != "http/1.1 http/1.1 none " || protocols["ours"] != protocols["original"] {
		t.Errorf("protocols: %q", protocols)
	}
	if a, b := theirs.flush(t), ours.flush(t); a != b {
		t.Errorf("original: %s\nours: %s", a, b)
	}

	if err := os.WriteFile(filepath.Join(directory, "cert.pem"), []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := rig.WriteConfig(t, map[string]any{
		"port": rig.FreePort(t), "host": "127.0.0.1", "interval": 86400,
		"sslkey": filepath.Join(directory, "key.pem"), "sslcert": filepath.Join(directory, "cert.pem"),
	})
	if a, b := run(t, "original", settings), run(t, "ours", settings); a.status != 0 || b.status != 78 {
		t.Errorf("exit statuses %d and %d, want 0 and 78", a.status, b.status)
	}
	differ(t, "certificate that does not load")
}
