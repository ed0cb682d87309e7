package post

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
)

func TestAddress(t *testing.T) {
	for _, test := range []struct{ url, host, network, address string }{
		// The zone is an interface, whose name may have capital letters.
		{"http://[FE80::1%25Eth0]/x", "[fe80::1]", "tcp", "[fe80::1%Eth0]:80"},
		{"https://[fe80::1%25eth0]:8443/x", "[fe80::1]:8443", "tcp", "[fe80::1%eth0]:8443"},
	} {
		e := at(t, test.url, "")
		if e.host != test.host || e.network != test.network || e.address != test.address {
			t.Errorf("%s: Host %s, %s %s; want %s, %s %s",
				test.url, e.host, e.network, e.address, test.host, test.network, test.address)
		}
		if e.tls != nil && e.tls.ServerName != "fe80::1" {
			t.Errorf("%s: the certificate is to be for %s", test.url, e.tls.ServerName)
		}
	}
}

// addresses returns n addresses, numbered from 0.
func addresses(n int) (list []net.IPAddr) {
	for i := range n {
		list = append(list, net.IPAddr{IP: net.IPv4(192, 0, 2, byte(i))})
	}
	return list
}

func TestRace(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		takes []time.Duration // until a connection, or with a minus sign until a failure
		want  int             // the address that is connected to, -1 for none
		after time.Duration
	}{
		"one":                     {[]time.Duration{time.Second}, 0, time.Second},
		"one that is dead":        {[]time.Duration{-10 * time.Second}, -1, 10 * time.Second},
		"the first of two":        {[]time.Duration{0, 0}, 0, 0},
		"refused at once":         {[]time.Duration{-1, -1, 0}, 2, 2},
		"five of six are dead":    {[]time.Duration{-1e10, -1e10, -1e10, -1e10, -1e10, 0}, 5, 1250 * time.Millisecond},
		"the second is quicker":   {[]time.Duration{5 * time.Second, time.Second}, 1, 1250 * time.Millisecond},
		"the first is quicker":    {[]time.Duration{time.Second, 5 * time.Second}, 0, time.Second},
		"forty, all of them dead": {slicesOf(40, -10*time.Second), -1, 39*attemptDelay + 10*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var open atomic.Int64
				began := time.Now()
				connect := func(ctx context.Context, ip net.IPAddr) (net.Conn, error) {
					i := ip.IP.To4()[3]
					// Like a connection that is there when its context ends.
					select {
					case <-time.After(test.takes[i].Abs()):
					case <-ctx.Done():
					}
					if test.takes[i] < 0 {
						return nil, fmt.Errorf("%d: %w", i, refused)
					}
					open.Add(1)
					return &numbered{number: int(i), open: &open}, nil
				}
				conn, err := race(t.Context(), addresses(len(test.takes)), connect)
				got := -1
				if err == nil {
					got = conn.(*numbered).number
				} else if err.Error() != "0: refused" {
					t.Errorf("the error is %v, want the first one", err)
				}
				if took := time.Since(began); got != test.want || took != test.after {
					t.Errorf("connected to %d after %v, want %d after %v", got, took, test.want, test.after)
				}
				synctest.Wait()
				if left := open.Load(); left > 1 || err != nil && left > 0 {
					t.Errorf("%d connections stay open", left)
				}
			})
		})
	}
}

// numbered is a connection that knows the number of its address.
type numbered struct {
	net.Conn
	number int
	open   *atomic.Int64 // how many are open
}

func (n *numbered) Close() error { n.open.Add(-1); return nil }

func slicesOf(n int, d time.Duration) (list []time.Duration) {
	for range n {
		list = append(list, d)
	}
	return list
}

// A name server that does not answer is waited for longer than a connection, and then
// the message speaks of the name.
func TestSilentNameServer(t *testing.T) {
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	// Package net makes a channel at its first look-up. It must not belong to the bubble.
	(&net.Resolver{PreferGo: true}).LookupHost(t.Context(), "localhost")
	synctest.Test(t, func(t *testing.T) {
		dialer := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: dialer}
		for timeout, want := range map[time.Duration]string{
			// The time that the resolver takes depends on /etc/resolv.conf.
			9 * time.Second: "getaddrinfo EAI_AGAIN application.example: no answer within 9s",
			time.Hour:       "getaddrinfo EAI_AGAIN application.example",
		} {
			began := time.Now()
			err := at(t, "http://application.example", "").Post(t.Context(), timeout, "", nil)
			if err == nil || !strings.HasPrefix(err.Error(), "cannot connect to endpoint : "+want) {
				t.Errorf("error %v, want %s", err, want)
			}
			if took := time.Since(began); took < min(timeout, connectTimeout) {
				t.Errorf("the look-up ended after %v", took)
			}
		}
	})
}

func TestTimeoutsOfConnections(t *testing.T) {
	err := &net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, Err: os.ErrDeadlineExceeded}
	if got, want := reason(err), "connect ETIMEDOUT 192.0.2.1:80"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
}

func TestUnixSocket(t *testing.T) {
	folder, err := os.MkdirTemp("", "socket") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	u := &url.URL{Scheme: "http", Host: "localhost", Path: path}
	e := New(u, "/save?a=b", "")
	want := "cannot connect to endpoint : dial unix " + path + ": "
	if err := e.Post(t.Context(), time.Minute, "", nil); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	go rig.Accept(listener, func(conn net.Conn) {
		request, _ := rig.ReadRequest(conn)
		received <- request
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	defer listener.Close()
	if err := e.Post(t.Context(), time.Minute, "", nil); err != nil {
		t.Fatal(err)
	}
	if got, want := <-received, "POST /save?a=b HTTP/1.1\r\nhost: localhost\r\n"; !strings.HasPrefix(got, want) {
		t.Errorf("the request is:\n%s\nwant:\n%s", got, want)
	}
}

// Lines may end in LF alone, and empty lines may come first.
func TestLenientAnswers(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 204 No Content\n\n":                                   "",
		"HTTP/1.0 200\n\nbody":                                          "",
		"\r\nHTTP/1.1 204 No Content\r\n\r\n":                           "",
		"\n\r\n\nHTTP/1.1 500 Oops\n\n":                                 "flush failed with code:500",
		"HTTP/1.1 103 Early\nLink: x\n\nHTTP/1.1 204 No Content\n\n":    "",
		"HTTP/1.1 100 Continue\n\n\nHTTP/1.1 503 Busy\r\n\r\n":          "flush failed with code:503",
		"HTTP/1.1 103 Early\r\n\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n": "",
		"\rHTTP/1.1 204 No Content\r\n\r\n":                             "cannot connect to endpoint : the answer is not HTTP",
		" \r\nHTTP/1.1 204 No Content\r\n\r\n":                          "cannot connect to endpoint : the answer is not HTTP",
		strings.Repeat("\r\n", maxAnswer):                               "cannot connect to endpoint : socket hang up",
	} {
		err := at(t, listening(t, answering(answer)), "").Post(t.Context(), time.Minute, "", nil)
		if err != nil && err.Error() != want || err == nil && want != "" {
			t.Errorf("%.60q: error %v, want %q", answer, err, want)
		}
	}
}

// The error says where a redirect leads, but no secrets.
func TestRedirectsTo(t *testing.T) {
	for location, want := range map[string]string{
		"https://www.example.com/save":                     "https://www.example.com/save",
		"https://www.example.com/save?token=hunter2":       "https://www.example.com/save",
		"https://user:hunter2@www.example.com:444/#hunter": "https://www.example.com:444/",
		"/elsewhere/a%20b":                                 "http://HOST/elsewhere/a%20b",
		"save/":                                            "http://HOST/a/save/",
		"//other/":                                         "http://other/",
		"?x=hunter2":                                       "http://HOST/a/save",
		"/a;session=hunter2/b":                             "http://HOST/a",
		"https://h\xE9/":                                   "https://h%E9/",
		"mailto:hunter2":                                   "",
		"https:/user:hunter2@h/":                           "",
		"http:hunter2":                                     "",
		"/" + strings.Repeat("x", maxLocation):             "",
		"http://[hunter2/":                                 "",
		"":                                                 "",
		"/a\x1b[2Jb":                                       "",
	} {
		for _, end := range []string{"\r\n", "\n"} {
			address := listening(t, answering("HTTP/1.1 308 Permanent Redirect"+end+"Location: "+location+end+end))
			err := at(t, address+"/a/save?secret=hunter2", "").Post(t.Context(), time.Minute, "", nil)
			expectError(t, err, "flush failed with code:308")
			want := strings.Replace(want, "http://HOST", address, 1)
			if got := RedirectsTo(fmt.Errorf("wrapped: %w", err)); got != want {
				t.Errorf("%q: redirects to %q, want %q", location, got, want)
			}
		}
	}
	created := listening(t, answering("HTTP/1.1 503 Busy\r\nLocation: /new\r\n\r\n"))
	if got := RedirectsTo(at(t, created, "").Post(t.Context(), time.Minute, "", nil)); got != "" {
		t.Errorf("a 503 redirects to %q", got)
	}
	if RedirectsTo(nil) != "" || RedirectsTo(errNotHTTP) != "" {
		t.Error("what is no answer redirects")
	}
}

// An authority that is renewed while the daemon runs counts from the next flush on, too.
func TestRenewedAuthority(t *testing.T) {
	authority := rig.Issue(t, "authority", nil)
	leaf := rig.Issue(t, "application", authority)
	application := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	application.Config.ErrorLog = log.New(io.Discard, "", 0)
	application.TLS = &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{leaf.Certificate.Raw}, PrivateKey: leaf.Key,
	}}}
	application.StartTLS()
	defer application.Close()
	expired := *authority.Certificate
	expired.NotAfter = time.Now().Add(-time.Minute)
	der, err := x509.CreateCertificate(rand.Reader, &expired, &expired, authority.Key.Public(), authority.Key)
	if err != nil {
		t.Fatal(err)
	}
	e := at(t, application.URL, "")
	e.tls.RootCAs = x509.NewCertPool()
	e.tls.RootCAs.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	file := filepath.Join(t.TempDir(), "authorities.pem")
	t.Setenv("SSL_CERT_FILE", file)
	if err := os.WriteFile(file, []byte(rig.CertificatesPEM(authority)), 0o600); err != nil {
		t.Fatal(err)
	}
	err = e.Post(t.Context(), time.Minute, "", nil)
	if err == nil || !strings.Contains(err.Error(), "certificate has expired") {
		t.Errorf("error %v, want that the authority's certificate has expired", err)
	}
	expectError(t, e.Post(t.Context(), time.Minute, "", nil), "")
}

// An authority that is added while the daemon runs counts from the next flush on, in
// each place where the system looks for authorities.
func TestHTTPS(t *testing.T) {
	application := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("json") != `{"a":1}` {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	application.Config.ErrorLog = log.New(io.Discard, "", 0)
	application.StartTLS()
	defer application.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: application.Certificate().Raw})
	c := counts(map[string]int64{"a": 1})

	folder := t.TempDir()
	file := filepath.Join(folder, "authorities.pem")
	for variable, value := range map[string]string{
		"SSL_CERT_FILE": file,
		"SSL_CERT_DIR":  filepath.Join(folder, "none") + string(filepath.ListSeparator) + folder,
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			e := at(t, application.URL, "")
			for range 2 {
				expectError(t, e.Post(t.Context(), time.Minute, "", c),
					"cannot connect to endpoint : tls: failed to verify certificate: x509: certificate signed by unknown authority")
			}
			if err := os.WriteFile(file, authority, 0o600); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(file)
			for range 2 {
				expectError(t, e.Post(t.Context(), time.Minute, "", c), "")
			}
		})
	}
}

// Ready is called when there is a connection, for a request with an id only. After an error, the connection is closed and
// has got nothing.
func TestReady(t *testing.T) {
	for _, test := range []struct {
		id    string
		there bool  // the application
		err   error // of Ready
		calls int
		want  Outcome // 0 with there if the POST is accepted
	}{
		{"id", true, nil, 1, 0},
		{"id", false, nil, 0, Unreachable},
		{"", true, errors.New("full"), 0, 0},
		{"id", true, errors.New("full"), 1, Unready},
	} {
		received, ended := int64(0), make(chan bool)
		c := piped(t, func(conn net.Conn) {
			defer close(ended)
			if test.want == 0 {
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
				return
			}
			received, _ = io.Copy(io.Discard, conn) // until it is closed
		})
		if !test.there {
			c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }
			close(ended)
		}
		calls := 0
		c.Ready = func() error { calls++; return test.err }
		err := c.Post(t.Context(), time.Minute, test.id, nil)
		select {
		case <-ended:
		case <-time.After(rig.Deadline):
			t.Fatalf("%+v: the connection stays open", test)
		}
		if test.there && test.want == 0 {
			if err != nil {
				t.Errorf("%+v: the error is %v", test, err)
			}
		} else {
			expectFailure(t, fmt.Sprintf("%+v", test), err, test.want, false)
		}
		if calls != test.calls || received > 0 {
			t.Errorf("%+v: Ready is called %d times, and %d bytes are received", test, calls, received)
		}
	}
}
