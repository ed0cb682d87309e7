package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/pixel"
)

// piped is an end of a net.Pipe that a conn can be made of.
type piped struct {
	net.Conn
	closedWrite atomic.Bool
}

func (p *piped) Write(bytes []byte) (int, error) {
	if p.closedWrite.Load() {
		return 0, io.ErrClosedPipe
	}
	return p.Conn.Write(bytes)
}

// newConn returns a conn for a registry, over a pipe whose other end is silent.
func newConn(t *testing.T, g *registry) *conn {
	here, other := net.Pipe()
	t.Cleanup(func() {
		here.Close()
		other.Close()
	})
	end := &piped{Conn: here}
	return &conn{Conn: end, raw: end, registry: g}
}

func (p *piped) CloseWrite() error {
	p.closedWrite.Store(true)
	return nil
}

// pipes is a listener for the other ends of pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   *sync.Once
}

func newPipes() pipes { return pipes{make(chan net.Conn, 10), make(chan struct{}), new(sync.Once)} }

// dial returns an end of a pipe whose other end is accepted.
func (p pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return &piped{Conn: conn}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// startPiped serves the pixel over pipes until the test ends.
func startPiped(t *testing.T, limits Limits, stderr io.Writer) (*Server, *hits.Store, pipes) {
	t.Helper()
	store, p := hits.NewStore(1<<20), newPipes()
	s := New(pixel.Handler{Hits: store}, nil, limits, stderr)
	go s.Serve(p)
	t.Cleanup(func() { s.Stop(t.Context()) })
	return s, store, p
}

const hit = "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\n\r\n"

// makeHit makes a hit over a connection, and fails the test unless it is answered.
func makeHit(t *testing.T, conn net.Conn) {
	t.Helper()
	go io.WriteString(conn, hit)
	readAnswer(t, bufio.NewReader(conn))
}

func readAnswer(t *testing.T, r *bufio.Reader) *http.Response {
	t.Helper()
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, answer.Body); answer.StatusCode != 200 || n != 35 || err != nil {
		t.Fatalf("status %d and %d bytes, error %v", answer.StatusCode, n, err)
	}
	return answer
}

// expectEnd fails the test unless the connection ends after a time, which a sweep
// may extend by a second.
func expectEnd(t *testing.T, what string, conn net.Conn, after time.Duration) {
	t.Helper()
	began := time.Now()
	io.Copy(io.Discard, conn)
	if took := time.Since(began); took < after || took > after+time.Second {
		t.Errorf("%s ends after %v, want %v", what, took, after)
	}
}

// isOpen reports whether the other end of a pipe is still open.
func isOpen(conn net.Conn) bool {
	conn.SetReadDeadline(time.Now().Add(time.Nanosecond))
	defer conn.SetReadDeadline(time.Time{})
	_, err := conn.Read(make([]byte, 1))
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
