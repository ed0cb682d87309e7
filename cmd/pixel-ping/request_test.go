//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// exchange sends raw bytes to a daemon and returns the statuses of the answers,
// as many as are asked for.
func exchange(t *testing.T, d *process, request string, answers int) (statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	r := bufio.NewReader(conn)
	for len(statuses) < answers {
		answer, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%.80q: %v after the answers %v", request, err, statuses)
		}
		if answer.StatusCode != http.StatusContinue {
			if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Fatalf("%.80q: %v", request, err)
			}
		}
		statuses = append(statuses, answer.StatusCode)
	}
	return statuses
}

// What net/http decides before or after the handler, in which it is to be as
// Node is.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL})
	const host = " HTTP/1.1\r\nHost: x\r\n"
	for _, test := range []struct {
		name, request string
		want          []int
	}{
		{"GET", "GET /pixel.gif?key=01" + host + "\r\n", []int{200}},
		{"HEAD", "HEAD /pixel.gif?key=02" + host + "\r\n", []int{200}},
		{"POST", "POST /pixel.gif?key=03" + host + "Content-Length: 3\r\n\r\nabc", []int{200}},
		{"chunks", "PUT /pixel.gif?key=04" + host + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", []int{200}},
		{"body that never comes", "POST /pixel.gif?key=05" + host + "Content-Length: 1000\r\n\r\n", []int{200}},
		{"OPTIONS", "OPTIONS /pixel.gif?key=06" + host + "\r\n", []int{200}},
		{"OPTIONS *", "OPTIONS *" + host + "\r\n", []int{404}},
		{"absolute form", "GET http://y/pixel.gif?key=07" + host + "\r\n", []int{200}},
		{"HTTP/1.0", "GET /pixel.gif?key=08 HTTP/1.0\r\n\r\n", []int{200}},
		{"no Host", "GET /pixel.gif?key=no HTTP/1.1\r\n\r\n", []int{400}},
		{"unknown method", "FOO /pixel.gif?key=no" + host + "\r\n", []int{400}},
		{"Expect and a body",
			"POST /pixel.gif?key=09" + host + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", []int{100, 200}},
		{"Expect alone", "GET /pixel.gif?key=10" + host + "Expect: 100-continue\r\n\r\n", []int{100, 200}},
		{"other Expect", "GET /pixel.gif?key=no" + host + "Expect: more\r\n\r\n", []int{417}},
		{"pipelined",
			"GET /pixel.gif?key=11" + host + "\r\nPOST /no" + host + "Content-Length: 3\r\n\r\nabc" +
				"GET /pixel.gif?key=12" + host + "\r\n", []int{200, 404, 200}},
		{"semicolon", "GET /pixel.gif?key=13;key=14" + host + "\r\n", []int{200}},
		{"long key", "GET /pixel.gif?x=" + strings.Repeat("x", 15000) + "&key=15" + host + "\r\n", []int{200}},
		{"too long key", "GET /pixel.gif?key=" + strings.Repeat("no", 11000) + host + "\r\n", []int{431}},
		{"too long header", "GET /pixel.gif?key=no" + host + "X: " + strings.Repeat("x", 22000) + "\r\n\r\n", []int{431}},
		{"raw UTF-8", "GET /pixel.gif?key=n\xc3\xb6" + host + "\r\n", []int{400}},
		{"tab", "GET /pixel.gif?key=n\to" + host + "\r\n", []int{400}},
		{"space", "GET /pixel.gif?key=n o" + host + "\r\n", []int{400}},
		{"NUL", "GET /pixel.gif?key=n\x00o" + host + "\r\n", []int{400}},
		{"DEL", "GET /pixel.gif?key=n\x7fo" + host + "\r\n", []int{400}},
		{"broken chunk",
			"POST /no" + host + "Transfer-Encoding: chunked\r\n\r\nzz\r\nGET /pixel.gif?key=no" + host + "\r\n", []int{404}},
		{"printable", "GET /pixel.gif?key=16\"<>\\^`{|}'" + host + "\r\n", []int{200}},
	} {
		if got := exchange(t, d, test.request, len(test.want)); !slices.Equal(got, test.want) {
			t.Errorf("%s: statuses %v, want %v", test.name, got, test.want)
		}
	}
	d.Signal(t, os.Interrupt)
	app.expect(t, "json=%7B%2201%22%3A1%2C%2202%22%3A1%2C%2203%22%3A1%2C%2204%22%3A1%2C%2205%22%3A1%2C%2206%22%3A1%2C"+
		"%2207%22%3A1%2C%2208%22%3A1%2C%2209%22%3A1%2C%2210%22%3A1%2C%2211%22%3A1%2C%2212%22%3A1%2C"+
		"%2213%3Bkey%3D14%22%3A1%2C%2215%22%3A1%2C%2216%5C%22%3C%3E%5C%5C%5E%60%7B%7C%7D'%22%3A1%7D")
}

// A body of at most 256 kB is read. After a longer one the connection ends, and the
// client has the answer by then.
func TestLongBodies(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	for length, answers := range map[int]int{256 << 10: 2, 256<<10 + 1: 1, 100 << 20: 1} {
		conn, err := net.Dial("tcp", d.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(rig.Deadline))
		go func() {
			fmt.Fprintf(conn, "POST /pixel.gif HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", length)
			io.CopyN(conn, zeroes{}, int64(length))
			io.WriteString(conn, "GET /pixel.gif HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		}()
		text, _ := io.ReadAll(conn)
		if got := strings.Count(string(text), "HTTP/1.1 200"); got != answers {
			t.Errorf("a body of %d bytes: %d answers, want %d", length, got, answers)
		}
	}
}

// zeroes reads as zeroes without an end.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// The connection is kept, and what is sent does not show in the log.
func TestKeptConnection(t *testing.T) {
	t.Parallel()
	d := start(t, nil)
	const hit = "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, status := range exchange(t, d, strings.Repeat(hit, 1000), 1000) {
		if status != 200 {
			t.Fatalf("status %d, want 200", status)
		}
	}
	log := d.log.String()
	exchange(t, d, "GET /pixel.gif?a;b HTTP/1.1\r\nHost: x\r\n\r\n", 1)
	exchange(t, d, "\x16\x03\x01 nonsense\r\n\r\n", 1)
	if got := d.log.String(); got != log {
		t.Errorf("a client has written to the log:\n%s", got)
	}
}

func TestLocalhostIsBoundOnEveryAddress(t *testing.T) {
	addresses, err := net.LookupHost("localhost")
	if err != nil { // without a hosts file
		addresses = []string{"127.0.0.1", "::1"}
	}
	d := start(t, map[string]any{"host": "localhost"})
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if address == "::1" && !rig.HasIPv6(t) {
			continue
		}
		conn, err := net.Dial("tcp", net.JoinHostPort(address, u.Port()))
		if err != nil {
			t.Errorf("localhost is also %s: %v", address, err)
			continue
		}
		conn.Close()
	}
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: rig.WriteCertificate(t, folder)},
		ForceAttemptHTTP2: true,
	}}
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	app := newApplication(t)
	d := start(t, map[string]any{"sslcert": cert, "sslkey": key, "sslca": cert, "endpoint": app.URL})
	if !strings.HasPrefix(d.url, "https://127.0.0.1:") {
		t.Errorf("announced as %s", d.url)
	}
	log := d.log.String()
	answer, err := client.Get(d.url + "?key=a;b")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 || answer.Proto != "HTTP/1.1" {
		t.Errorf("status %d over %s, want 200 over HTTP/1.1", answer.StatusCode, answer.Proto)
	}
	if answer, err = http.Get("http" + strings.TrimPrefix(d.url, "https") + "?key=plain"); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 400 {
		t.Errorf("status %d without TLS, want 400", answer.StatusCode)
	}
	u, err := url.Parse(d.url)
	if err != nil {
		t.Fatal(err)
	}
	old := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", u.Host, old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 is served")
	}
	if got := d.log.String(); got != log {
		t.Errorf("a client has written to the log:\n%s", got)
	}
	d.Signal(t, os.Interrupt)
	app.expect(t, "json=%7B%22a%3Bb%22%3A1%7D")
}
