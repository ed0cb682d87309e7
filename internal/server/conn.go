package server

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// An acceptor accepts connections as conns.
type acceptor struct {
	net.Listener
	registry *registry
}

// Accept returns the next connection for which there is room.
func (a acceptor) Accept() (net.Conn, error) {
	for {
		accepted, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{tcp: accepted.(tcp), registry: a.registry}
		if a.registry.add(c) {
			return c, nil
		}
		accepted.Close()
	}
}

// tcp is what a conn needs of a TCP connection.
type tcp interface {
	net.Conn
	CloseWrite() error
}

// A conn is a connection that the registry knows. One goroutine reads and one
// writes at a time; the other methods may be called by many at once.
type conn struct {
	tcp
	registry *registry

	// The mutex of the registry guards these.
	state      state
	since      time.Time // when state began
	prev, next *conn     // in the list of state
	http2      bool      // a request has come over HTTP/2
	greeted    bool      // HTTP/2 is set up, or all streams were reset, and no request is under way
	begun      int       // requests since c became busy

	active atomic.Bool // net/http has a request under way, or a stream open
	heard  atomic.Bool // a byte has come since the accept, or since the connection became idle

	unsent atomic.Bool // HTTP/2's answers are finished, and the next Write sends them

	mu          sync.Mutex
	reading     bool // a Read is under way
	interrupted bool // net/http has interrupted its Read, and does not want to read yet
	deadlineSet bool // the TCP connection has the deadline of an interruption
}

// underlying returns the conn of a connection as net/http knows it: the conn
// itself, or TLS over one.
func underlying(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	return c.(*conn)
}

// Read reads, unless net/http has interrupted it. It notes the first byte since the
// connection became idle.
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.interrupted {
		c.mu.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
	if c.deadlineSet {
		c.deadlineSet = false
		c.tcp.SetReadDeadline(time.Time{})
	}
	c.reading = true
	c.mu.Unlock()

	n, err := c.tcp.Read(p)

	c.mu.Lock()
	c.reading = false
	c.mu.Unlock()
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
		c.registry.hear(c)
	}
	return n, err
}

// Write writes, and notes that it has sent the answers which HTTP/2 had finished.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.tcp.Write(p)
	if c.unsent.Load() {
		c.registry.sent(c)
	}
	return n, err
}

// SetReadDeadline interrupts a Read at t, or ends the interruption if t is zero.
// net/http reads ahead while a request is answered, and interrupts that read with a
// time in the past when the answer is sent. It sets no other deadline, since the
// Server gives it no time limits.
//
// Usually no Read is under way. Then SetReadDeadline only notes the interruption for
// the next Read, which costs less than two changes of the runtime's timers.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.interrupted = !t.IsZero()
	if c.interrupted && c.reading {
		c.deadlineSet = true
		return c.tcp.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline sets a deadline, as TLS does for its close_notify. It ignores a
// zero t: net/http clears the deadline after each answer, though none was set.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		return nil
	}
	return c.tcp.SetWriteDeadline(t)
}

// SetDeadline sets both deadlines.
func (c *conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// Close closes the connection. During a stop it first closes the sending side and
// reads on, until the client closes its side or leaveTime is over: the system resets
// a connection that is closed with something unread, and the client would lose
// answers that are on their way.
func (c *conn) Close() error {
	if c.registry.leave(c) {
		c.tcp.SetReadDeadline(time.Now().Add(leaveTime))
		io.Copy(io.Discard, c.tcp)
	}
	c.registry.remove(c)
	return c.tcp.Close()
}
