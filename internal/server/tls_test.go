package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/listen"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/rig"
	"pixel-ping/internal/stats"
)

// testCertificate makes a certificate and returns the function that New takes.
func testCertificate(t testing.TB) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	t.Helper()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
}

// startTLS serves the pixel over TLS and pipes until the test ends.
func startTLS(t *testing.T, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*Server, pipes) {
	t.Helper()
	p := newPipes()
	s := New(pixel.Handler{Hits: hits.NewStore(1 << 20)}, certificate, Limits{}, io.Discard)
	go s.Serve(p)
	t.Cleanup(func() { s.Stop(t.Context()) })
	return s, p
}

// shakeHands does a TLS handshake in which the client offers protocols.
func shakeHands(t *testing.T, p pipes, protocols ...string) (*tls.Conn, error) {
	t.Helper()
	conn := tls.Client(p.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
	t.Cleanup(func() { conn.NetConn().Close() })
	return conn, conn.Handshake()
}

// dialTLS does a TLS handshake, which must succeed.
func dialTLS(t *testing.T, p pipes) *tls.Conn {
	t.Helper()
	conn, err := shakeHands(t, p, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// The protocol is HTTP/1.1 whatever else a client offers, if it offers anything else.
func TestProtocols(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		for offered, want := range map[string]string{
			"http/1.1": "http/1.1", "h2 http/1.1": "http/1.1", "http/1.1 h2": "http/1.1", "": "",
		} {
			conn, err := shakeHands(t, p, strings.Fields(offered)...)
			if err != nil {
				t.Fatalf("offered %q: %v", offered, err)
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != want {
				t.Errorf("offered %q: the protocol is %q, want %q", offered, got, want)
			}
			go io.WriteString(conn, hit)
			if answer := readAnswer(t, bufio.NewReader(conn)); answer.Proto != "HTTP/1.1" {
				t.Errorf("offered %q: answered over %s", offered, answer.Proto)
			}
		}
		if _, err := shakeHands(t, p, "h2"); err == nil || !strings.Contains(err.Error(), "no application protocol") {
			t.Errorf("a client that speaks HTTP/2 only is refused with %v", err)
		}
		synctest.Wait()
		if got := s.Stats().FailedHandshakes; got != 1 {
			t.Errorf("%d handshakes have failed, want 1", got)
		}
	})
}

// HTTP/2 without TLS is refused, whether a client knows that it wants it or asks for it.
func TestPlainHTTP2(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := startPiped(t, Limits{}, io.Discard)
		for request, want := range map[string]int{
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00": 400,
			strings.Replace(hit, "\r\n\r\n", "\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"+
				"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 1): 200,
		} {
			conn := p.dial()
			go io.WriteString(conn, request)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != want || answer.Proto != "HTTP/1.1" {
				t.Errorf("%.10q: %s over %s, want %d over HTTP/1.1", request, answer.Status, answer.Proto, want)
			}
			conn.Close()
		}
		if got := store.Stats().Pending; got != 1 {
			t.Errorf("%d hits are counted, want 1", got)
		}
	})
}

// A handshake fails if TLS says so, and not if its connection just ends. A client that
// speaks plain HTTP gets an answer.
func TestFailedHandshakes(t *testing.T) {
	listeners, err := listen.TCP(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	s := New(http.NotFoundHandler(), testCertificate(t), Limits{}, io.Discard)
	go s.Serve(listeners[0])
	defer s.Stop(t.Context())
	for _, test := range []struct {
		what string
		act  func(conn net.Conn) error
		want int64 // in all, after that
	}{
		{"a connection that ends at once", func(net.Conn) error { return nil }, 0},
		{"a connection that ends in its first header", func(conn net.Conn) error {
			_, err := conn.Write([]byte{22, 3, 1})
			return err
		}, 0},
		{"a client that does not trust the certificate", func(conn net.Conn) error {
			tls.Client(conn, &tls.Config{ServerName: "another.example.com"}).Handshake()
			return nil
		}, 1},
		{"a client with an old version", func(conn net.Conn) error {
			tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, ServerName: "localhost"}).Handshake()
			return nil
		}, 2},
		{"a client without TLS", func(conn net.Conn) error {
			io.WriteString(conn, hit)
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil && answer.StatusCode != 400 {
				err = errors.New(answer.Status)
			}
			return err
		}, 3},
		{"a client that ends after an answer", func(conn net.Conn) error {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			io.WriteString(conn, hit)
			_, err := http.ReadResponse(bufio.NewReader(conn), nil)
			return err
		}, 3},
		{"nothing", func(net.Conn) error { return nil }, 3}, // what came late before would show now
	} {
		conn, err := net.Dial("tcp", listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(rig.Deadline))
		if err := test.act(conn); err != nil {
			t.Errorf("%s: %v", test.what, err)
		}
		conn.Close()
		want := stats.Connections{FailedHandshakes: test.want}
		for limit := time.Now().Add(rig.Deadline); s.Stats() != want; <-time.After(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%s: counted %+v, want %+v", test.what, s.Stats(), want)
			}
		}
	}
}

// A client may not send TLS of which no HTTP comes, neither in its handshake nor after it.
func TestUnheardTLS(t *testing.T) {
	certificate := testCertificate(t)
	const record = "\x16\x03\x01\x40\x00" // of 16 kB
	part := record + "\x01\x00\xff\xff" + strings.Repeat("x", 16<<10-4)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		conn := p.dial()
		if _, err := io.WriteString(conn, part); err != nil {
			t.Errorf("a ClientHello of 16 kB is cut: %v", err)
		}
		if _, err := io.WriteString(conn, part); err == nil {
			t.Error("a ClientHello of 32 kB is read")
		}
		conn.Close()
		synctest.Wait()
		if got, want := s.Stats(), (stats.Connections{FailedHandshakes: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}

		kept := dialTLS(t, p)
		for range 10 { // each has a record of 16 kB
			go io.WriteString(kept, strings.Replace(hit, "\r\n\r\n", "\r\nX: "+strings.Repeat("x", 16_300)+"\r\n\r\n", 1))
			readAnswer(t, bufio.NewReader(kept))
		}
	})
}

// A client that is stuck in its handshake keeps no other from its own.
func TestHandshakesAtTheSameTime(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		_, p := startTLS(t, certificate)
		stuck := p.dial()
		defer stuck.Close()
		began := time.Now()
		makeHit(t, dialTLS(t, p))
		if took := time.Since(began); took > 0 {
			t.Errorf("a handshake took %v beside one that is stuck", took)
		}
	})
}

// deaf is a connection whose client hears nothing.
type deaf struct{ net.Conn }

func (deaf) Read([]byte) (int, error) { return 0, io.EOF }

// A stop gives 250 ms to TLS connections over which no byte of a request has come: to a
// silent one, to one that is stuck after its ClientHello, and to one after its handshake.
func TestStopWithTLSConnectionsWithoutARequest(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		silent, stuck := p.dial(), p.dial()
		defer silent.Close()
		defer stuck.Close()
		tls.Client(deaf{stuck}, &tls.Config{InsecureSkipVerify: true}).Handshake()
		go io.Copy(io.Discard, dialTLS(t, p))
		<-time.After(10 * time.Second)
		if took := stopWithin(t, s, 2*time.Second); took != 250*time.Millisecond {
			t.Errorf("a stop took %v, want 250ms", took)
		}
	})
}

// A handshake that is under way when a stop begins may end, and its request is answered.
func TestStopDuringAHandshake(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		conn := p.dial()
		<-time.After(10 * time.Second)
		answered := make(chan bool)
		time.AfterFunc(200*time.Millisecond, func() {
			client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			makeHit(t, client)
			client.Close()
			close(answered)
		})
		stopWithin(t, s, 2*time.Second)
		<-answered
	})
}

// Over TLS, a connection waits, is busy and idles as one without, and sends its farewell
// with the last answer.
func TestStatesOverTLS(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		conn := dialTLS(t, p)
		expect := func(what string, want state) {
			t.Helper()
			synctest.Wait()
			if s.registry.lists[want].first == nil {
				t.Errorf("%s: the connection is not in state %d", what, want)
			}
		}
		expect("after the handshake", waiting)
		makeHit(t, conn)
		expect("after an answer", idle)
		io.WriteString(conn, hit[:10])
		expect("in a request", waiting)
		go func() {
			<-time.After(time.Second)
			io.WriteString(conn, hit[10:])
		}()
		stopped := make(chan bool)
		go func() {
			stopWithin(t, s, 2*time.Second)
			close(stopped)
		}()
		readAnswer(t, bufio.NewReader(conn))
		farewell := make([]byte, 24) // an encrypted record of two bytes
		if _, err := io.ReadFull(conn.NetConn(), farewell); err != nil || farewell[0] != 23 {
			t.Errorf("after the answer comes % x, %v, want a record", farewell, err)
		}
		expect("after the last answer", leaving)
		if c := s.registry.lists[leaving].first; c == nil || !c.raw.(*piped).closedWrite.Load() {
			t.Error("the sending side is open")
		}
		conn.Close()
		<-stopped
	})
}
