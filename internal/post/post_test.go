package post

import (
	"bufio"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/rig"
)

func counts(of map[string]int64) (list []hits.Count) {
	for _, key := range slices.Sorted(maps.Keys(of)) {
		list = append(list, hits.Count{Key: key, Hits: of[key]})
	}
	return list
}

func at(t *testing.T, address, secret string) *Client {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	target := u.RequestURI()
	u.Path = ""
	return New(u, target, secret)
}

// listening starts a server that calls script for each connection and then closes
// the connection. It returns the URL of the server.
func listening(t *testing.T, script func(net.Conn)) string {
	t.Helper()
	return "http://" + rig.Listen(t, script)
}

// answering reads the request and writes answer.
func answering(answer string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := rig.ReadRequest(conn); err == nil {
			io.WriteString(conn, answer)
		}
	}
}

func expectError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("error %q, want %q", got, want)
	}
}

func TestRequest(t *testing.T) {
	for _, test := range []struct {
		path, secret string
		counts       map[string]int64
		want         string
	}{
		{"/save", "", map[string]int64{"a b": 1}, "POST /save HTTP/1.1\r\nhost: HOST\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 26\r\nConnection: keep-alive\r\n\r\n" +
			"json=%7B%22a%20b%22%3A1%7D"},
		{"", "", nil, "POST / HTTP/1.1\r\nhost: HOST\r\n" +
			"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\nConnection: keep-alive\r\n\r\n" +
			"json=%7B%7D"},
		{"/a%20b?c=d#e", "s&cret ü", map[string]int64{"b": 12, "a": 9007199254740993},
			"POST /a%20b?c=d HTTP/1.1\r\nhost: HOST\r\n" +
				"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 77\r\nConnection: keep-alive\r\n\r\n" +
				"json=%7B%22a%22%3A9007199254740993%2C%22b%22%3A12%7D&secret=s%26cret%20%C3%BC"},
	} {
		received := make(chan string, 1)
		address := listening(t, func(conn net.Conn) {
			request, _ := rig.ReadRequest(conn)
			received <- request
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		})
		c := counts(test.counts)
		expectError(t, at(t, address+test.path, test.secret).Post(t.Context(), time.Minute, "", c), "")
		want := strings.Replace(test.want, "HOST", strings.TrimPrefix(address, "http://"), 1)
		if got := <-received; got != want {
			t.Errorf("request:\n%s\nwant:\n%s", got, want)
		}
	}
}

func TestNew(t *testing.T) {
	for _, test := range []struct{ url, host, address, authorization string }{
		{"http://Example.COM/x", "example.com", "example.com:80", ""},
		{"https://example.com/x", "example.com", "example.com:443", ""},
		{"HTTPS://example.com:8443", "example.com:8443", "example.com:8443", ""},
		{"http://example.com:/x", "example.com", "example.com:80", ""},
		{"http://[::1]:81/x", "[::1]:81", "[::1]:81", ""},
		{"http://[::1]/x", "[::1]", "[::1]:80", ""},
		{"http://user:p%40ss@example.com", "example.com", "example.com:80", "Authorization: Basic dXNlcjpwQHNz\r\n"},
		{"http://user@example.com", "example.com", "example.com:80", "Authorization: Basic dXNlcjo=\r\n"},
	} {
		e := at(t, test.url, "")
		if e.host != test.host || e.address != test.address || e.authorization != test.authorization {
			t.Errorf("%s: %q, %q, %q; want %q, %q, %q", test.url,
				e.host, e.address, e.authorization, test.host, test.address, test.authorization)
		}
	}
}

func TestOnly2xxIsSuccess(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n\r\n":                                 "",
		"HTTP/1.0 201 Created\r\n\r\n":                            "",
		"HTTP/1.1 299 \r\n\r\n":                                   "",
		"HTTP/1.1 204\r\n\r\n":                                    "",
		"HTTP/1.1 200 " + strings.Repeat("k", 10000) + "\r\n\r\n": "",
		"HTTP/1.1 103 Early\r\nLink: " + strings.Repeat("x", 10000) + "\r\n\r\nHTTP/1.1 204 OK\r\n\r\n": "",
		"HTTP/1.1 2000 OK\r\n\r\n":                                     "cannot connect to endpoint : the answer is not HTTP",
		"HTTP/1.1  200 OK\r\n\r\n":                                     "cannot connect to endpoint : the answer is not HTTP",
		"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 OK\r\n\r\n": "",
		"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n":          "flush failed with code:500",
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                     "flush failed with code:101",
		"HTTP/1.1 300 Multiple Choices\r\n\r\n":                        "flush failed with code:300",
		"HTTP/1.1 302 Found\r\nLocation: /ok\r\n\r\n":                  "flush failed with code:302",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n":          "flush failed with code:404",
		"HTTP/1.1 503 Busy\r\n\r\n":                                    "flush failed with code:503",
		"HTTP/1.1 200 OK\r\nno header":                                 "",
		"HTTP/1.1 200 O":                                               "cannot connect to endpoint : socket hang up",
		"":                                                             "cannot connect to endpoint : socket hang up",
		"SSH-2.0-OpenSSH\r\n":                                          "cannot connect to endpoint : the answer is not HTTP",
		"HTTP/1.1 " + strings.Repeat("2", 2<<20):                       "cannot connect to endpoint : socket hang up",
	} {
		c := counts(map[string]int64{"a": 1})
		err := at(t, listening(t, answering(answer)), "").Post(t.Context(), time.Minute, "", c)
		if err != nil && err.Error() != want || err == nil && want != "" {
			t.Errorf("%.60q: error %v, want %q", answer, err, want)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	connections := make(chan bool, 10)
	address := listening(t, func(conn net.Conn) {
		connections <- true
		answering("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")(conn)
	})
	c := counts(map[string]int64{"a": 1})
	expectError(t, at(t, address, "").Post(t.Context(), time.Minute, "", c), "flush failed with code:302")
	if n := len(connections); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestEachPostConnectsAnew(t *testing.T) {
	connections := make(chan bool, 10)
	address := listening(t, func(conn net.Conn) {
		connections <- true
		for range 2 {
			answering("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n")(conn)
		}
	})
	e := at(t, address, "")
	c := counts(map[string]int64{"a": 1})
	for range 2 {
		expectError(t, e.Post(t.Context(), time.Minute, "", c), "")
	}
	if n := len(connections); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestNoConnection(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	c := counts(map[string]int64{"a": 1})
	expectError(t, at(t, "http://"+address, "").Post(t.Context(), time.Minute, "", c),
		"cannot connect to endpoint : connect ECONNREFUSED "+address)
}

func TestReset(t *testing.T) {
	c := counts(map[string]int64{"a": 1})
	before := listening(t, func(conn net.Conn) {
		rig.ReadRequest(conn)
		rig.Reset(conn)
	})
	expectError(t, at(t, before, "").Post(t.Context(), time.Minute, "", c), "cannot connect to endpoint : read ECONNRESET")

	// The status line decides, whatever happens to the connection after it.
	for answer, want := range map[string]string{
		"HTTP/1.1 200 OK\r\n":                            "",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab": "",
		"HTTP/1.1 500 Oops\r\n":                          "flush failed with code:500",
	} {
		after := listening(t, func(conn net.Conn) {
			answering(answer)(conn)
			rig.Reset(conn)
		})
		expectError(t, at(t, after, "").Post(t.Context(), time.Minute, "", c), want)
	}
}

// many returns a batch that is larger than the buffers of a socket.
func many(t *testing.T) []hits.Count {
	t.Helper()
	of := make(map[string]int64)
	for i := range 600 {
		of[strings.Repeat("k", 10000)+string(rune('a'+i))] = 1
	}
	return counts(of)
}

func TestAnswerBeforeTheRequestIsRead(t *testing.T) {
	c := many(t)

	// After a refusal, the rest of the request is not sent.
	refused := listening(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
		bufio.NewReader(conn).ReadByte()
	})
	expectError(t, at(t, refused, "").Post(t.Context(), time.Minute, "", c), "flush failed with code:503")

	// After a success, it is.
	whole := make(chan error, 1)
	accepted := listening(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		_, err := rig.ReadRequest(conn)
		whole <- err
	})
	expectError(t, at(t, accepted, "").Post(t.Context(), time.Minute, "", c), "")
	if err := <-whole; err != nil {
		t.Errorf("the application could not read the whole request: %v", err)
	}
}

// After a failure, the application may have saved the counts if it was sent the
// whole request and has not answered, or if a proxy has answered for it. It may
// accept them in parts if it has answered with 413 or has cut the connection.
func TestFailures(t *testing.T) {
	one := counts(map[string]int64{"a": 1})
	all := many(t)
	readOne := func(conn net.Conn) { conn.Read(make([]byte, 1)) }
	for name, test := range map[string]struct {
		counts  []hits.Count
		script  func(net.Conn)
		outcome Outcome
		written bool
	}{
		"413": {one, answering("HTTP/1.1 413 Too Large\r\n\r\n"), 413, true},
		"413 before it is read": {all, func(conn net.Conn) {
			readOne(conn)
			io.WriteString(conn, "HTTP/1.1 413 Too Large\r\n\r\n")
			rig.Reset(conn)
		}, 413, false},
		"closed before it is read":  {all, func(net.Conn) {}, Cut, false},
		"reset before it is read":   {all, rig.Reset, Cut, false},
		"closed after it was read":  {one, answering(""), Cut, true},
		"reset after it was read":   {one, func(conn net.Conn) { rig.ReadRequest(conn); rig.Reset(conn) }, Cut, true},
		"all of it read, then cut":  {all, answering(""), Cut, true},
		"half a status line":        {one, answering("HTTP/1.1 20"), Cut, true},
		"401":                       {one, answering("HTTP/1.1 401 Who\r\n\r\n"), 401, true},
		"500":                       {one, answering("HTTP/1.1 500 Oops\r\n\r\n"), 500, true},
		"501":                       {one, answering("HTTP/1.1 501 No\r\n\r\n"), 501, true},
		"502":                       {one, answering("HTTP/1.1 502 Bad Gateway\r\n\r\n"), 502, true},
		"503":                       {one, answering("HTTP/1.1 503 Busy\r\n\r\n"), 503, true},
		"504":                       {one, answering("HTTP/1.1 504 Late\r\n\r\n"), 504, true},
		"519":                       {one, answering("HTTP/1.1 519 X\r\n\r\n"), 519, true},
		"520":                       {one, answering("HTTP/1.1 520 X\r\n\r\n"), 520, true},
		"524":                       {one, answering("HTTP/1.1 524 X\r\n\r\n"), 524, true},
		"525":                       {one, answering("HTTP/1.1 525 X\r\n\r\n"), 525, true},
		"no HTTP after it was read": {all, answering("hello\r\n"), Unreachable, true},
		"502 before it is read": {all, func(conn net.Conn) {
			readOne(conn)
			io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
			rig.Reset(conn)
		}, 502, false},
		"503 before it is read": {all, func(conn net.Conn) {
			readOne(conn)
			io.WriteString(conn, "HTTP/1.1 503 Busy\r\n\r\n")
			rig.Reset(conn)
		}, 503, false},
	} {
		err := at(t, listening(t, test.script), "").Post(t.Context(), time.Minute, "", test.counts)
		expectFailure(t, name, err, test.outcome, test.written)
	}

	closed, _ := net.Listen("tcp", "127.0.0.1:0")
	closed.Close()
	refusing := at(t, "http://"+closed.Addr().String(), "")
	expectFailure(t, "refused", refusing.Post(t.Context(), time.Minute, "", all), Unreachable, false)
	synctest.Test(t, func(t *testing.T) {
		silent := piped(t, func(conn net.Conn) { <-time.After(time.Hour) })
		expectFailure(t, "no answer, not read", silent.Post(t.Context(), time.Minute, "", all), Late, false)
	})
	synctest.Test(t, func(t *testing.T) {
		silent := piped(t, func(conn net.Conn) { rig.ReadRequest(conn); <-time.After(time.Hour) })
		expectFailure(t, "no answer", silent.Post(t.Context(), time.Minute, "", all), Late, true)
	})
}

func expectFailure(t *testing.T, name string, err error, want Outcome, written bool) {
	t.Helper()
	if failed, ok := err.(*Failure); !ok || failed.Outcome != want || failed.Written != written {
		t.Errorf("%s: the failure is %+v, want outcome %d, and written is %v", name, err, want, written)
	}
}

// piped returns a client for a bubble: script handles each of its connections,
// which are pipes.
func piped(t *testing.T, script func(net.Conn)) *Client {
	e := at(t, "http://application", "")
	e.Dial = rig.Pipes(t, script)
	return e
}

func expectDuration(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
}

func TestTimeouts(t *testing.T) {
	hang := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	c := counts(map[string]int64{"a": 1})

	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := piped(t, hang).Post(t.Context(), time.Minute, "", c)
		expectError(t, err, "cannot connect to endpoint : no answer within 1m0s")
		expectDuration(t, began, time.Minute)
	})
	synctest.Test(t, func(t *testing.T) {
		e := piped(t, hang)
		e.tls = at(t, "https://application", "").tls
		began := time.Now()
		expectError(t, e.Post(t.Context(), time.Minute, "", c), "cannot connect to endpoint : no TLS handshake within 10s")
		expectDuration(t, began, 10*time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("it is over")) })
		began := time.Now()
		expectError(t, piped(t, hang).Post(ctx, time.Minute, "", c), "cannot connect to endpoint : it is over")
		expectDuration(t, began, time.Second)
	})
}

// An answer that does not end holds up Post for a second at most.
func TestLongAnswers(t *testing.T) {
	for name, answer := range map[string]func(io.Writer){
		"endless body": func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\n\r\n")
			for kilobyte := strings.Repeat("x", 1024); ; {
				if _, err := io.WriteString(w, kilobyte); err != nil {
					return
				}
			}
		},
		"endless headers": func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			for headers := strings.Repeat("x: y\r\n", 100); ; {
				if _, err := io.WriteString(w, headers); err != nil {
					return
				}
			}
		},
		"slow body": func(w io.Writer) {
			io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
			for range time.Tick(300 * time.Millisecond) {
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := piped(t, func(conn net.Conn) {
					rig.ReadRequest(conn)
					answer(conn)
				})
				c := counts(map[string]int64{"a": 1})
				began := time.Now()
				expectError(t, e.Post(t.Context(), time.Minute, "", c), "")
				if took := time.Since(began); took > drainTimeout {
					t.Errorf("took %v, want at most %v", took, drainTimeout)
				}
			})
		})
	}
}
