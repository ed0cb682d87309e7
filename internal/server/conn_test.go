package server

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// connect runs a test in a bubble with both ends of a connection.
func connect(t *testing.T, test func(t *testing.T, c *conn, p *piped, other net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		here, other := net.Pipe()
		defer other.Close()
		p := &piped{Conn: here}
		c := &conn{tcp: p, registry: &registry{limit: 1}}
		c.registry.add(c)
		defer c.Close()
		test(t, c, p, other)
	})
}

// expectTimeout fails unless io ends with its deadline after that time.
func expectTimeout(t *testing.T, after time.Duration, io func([]byte) (int, error)) {
	t.Helper()
	began := time.Now()
	n, err := io(make([]byte, 10))
	if took := time.Since(began); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != after {
		t.Errorf("%d bytes and %v after %v, want the deadline after %v", n, err, took, after)
	}
}

// As net/http does around each request: it reads ahead, and interrupts that read,
// whether it has begun or not.
func TestInterruption(t *testing.T) {
	connect(t, func(t *testing.T, c *conn, p *piped, other net.Conn) {
		time.AfterFunc(time.Minute, func() { c.SetReadDeadline(time.Unix(1, 0)) })
		expectTimeout(t, time.Minute, c.Read)
		expectTimeout(t, 0, c.Read)
		c.SetReadDeadline(time.Time{})
		go other.Write([]byte("data"))
		if n, err := c.Read(make([]byte, 10)); n != 4 || err != nil {
			t.Errorf("%d bytes and %v after the interruption, want 4", n, err)
		}
		c.SetDeadline(time.Unix(1, 0))
		expectTimeout(t, 0, c.Read)
		expectTimeout(t, 0, c.Write)
	})
}

// TLS limits its last words, and net/http's clearing of deadlines after each
// answer does not change that.
func TestWriteDeadline(t *testing.T) {
	connect(t, func(t *testing.T, c *conn, _ *piped, _ net.Conn) {
		c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		c.SetWriteDeadline(time.Time{})
		expectTimeout(t, 5*time.Second, c.Write)
	})
}

// Requests over a kept connection tell the runtime few deadlines.
func TestDeadlinesOfManyRequests(t *testing.T) {
	connect(t, func(t *testing.T, c *conn, p *piped, other net.Conn) {
		go io.Copy(other, other)
		for range 100 {
			c.SetReadDeadline(time.Time{})
			c.Write([]byte("x"))
			c.SetWriteDeadline(time.Time{})
			c.SetReadDeadline(time.Unix(1, 0))
			c.SetReadDeadline(time.Time{})
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("%d bytes and %v, want one", n, err)
			}
		}
		if p.told > 0 {
			t.Errorf("%d deadlines were told for 100 requests", p.told)
		}
	})
}
