package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/pixel"
)

// piped is an end of a net.Pipe that notes the deadlines which it is told.
type piped struct {
	net.Conn
	told int
}

func (p *piped) CloseWrite() error { return nil }

func (p *piped) SetReadDeadline(t time.Time) error {
	p.told++
	return p.Conn.SetReadDeadline(t)
}

func (p *piped) SetWriteDeadline(t time.Time) error {
	p.told++
	return p.Conn.SetWriteDeadline(t)
}

// deadlines runs a test in a bubble with both ends of a connection.
func deadlines(t *testing.T, test func(t *testing.T, c *conn, p *piped, other net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		here, other := net.Pipe()
		defer other.Close()
		p := &piped{Conn: here}
		c := &conn{tcp: p, open: new(connections)}
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
		t.Errorf("%d bytes and %v after %v, want its deadline after %v", n, err, took, after)
	}
}

func TestDeadlinePasses(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, _ *piped, _ net.Conn) {
		c.SetReadDeadline(time.Now().Add(time.Minute))
		c.SetWriteDeadline(time.Now().Add(time.Minute))
		expectTimeout(t, time.Minute, c.Read)
		expectTimeout(t, 0, c.Write)
		expectTimeout(t, 0, c.Read)

		// Sooner than the one before, and later than one that has passed.
		c.SetDeadline(time.Now().Add(time.Hour))
		c.SetDeadline(time.Now().Add(time.Second))
		expectTimeout(t, time.Second, c.Write)
		c.SetDeadline(time.Now().Add(time.Minute))
		expectTimeout(t, time.Minute, c.Read)
	})
}

func TestDeadlineMovesWhileWaiting(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, _ *piped, _ net.Conn) {
		for _, io := range []func([]byte) (int, error){c.Read, c.Write} {
			c.SetDeadline(time.Now().Add(time.Minute))
			time.AfterFunc(30*time.Second, func() { c.SetDeadline(time.Now().Add(time.Minute)) })
			expectTimeout(t, 90*time.Second, io)

			c.SetDeadline(time.Now().Add(time.Minute))
			time.AfterFunc(30*time.Second, func() { c.SetDeadline(time.Time{}) })
			time.AfterFunc(2*time.Minute, func() { c.SetDeadline(time.Now().Add(time.Second)) })
			expectTimeout(t, 121*time.Second, io)

			c.SetDeadline(time.Time{})
			time.AfterFunc(10*time.Second, func() { c.SetDeadline(time.Now()) })
			expectTimeout(t, 10*time.Second, io)
		}
	})
}

// No write waits for ever for a client that does not read.
func TestWriteWithoutDeadline(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, _ *piped, other net.Conn) {
		for range 2 {
			expectTimeout(t, 20*time.Second, c.Write)
		}
		go io.Copy(io.Discard, other)
		if n, err := io.WriteString(c, "data"); n != 4 || err != nil {
			t.Errorf("%d bytes are written, with %v", n, err)
		}
	})
}

// As net/http does around each request: it reads ahead, and interrupts that,
// whether it has begun or not.
func TestInterruption(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, p *piped, other net.Conn) {
		c.SetReadDeadline(time.Time{})
		time.AfterFunc(time.Minute, func() { c.SetReadDeadline(time.Unix(1, 0)) })
		expectTimeout(t, time.Minute, c.Read)
		expectTimeout(t, 0, c.Read)
		c.SetReadDeadline(time.Now().Add(time.Minute))
		expectTimeout(t, time.Minute, c.Read)

		c.SetReadDeadline(time.Now().Add(time.Hour))
		told := 0
		for range 2 {
			go other.Write([]byte("data"))
			if n, err := c.Read(make([]byte, 10)); n != 4 || err != nil {
				t.Errorf("%d bytes and %v, want 4", n, err)
			}
			if told > 0 && p.told != told {
				t.Error("the connection was told of an interruption, though no read had begun")
			}
			told = p.told
			c.SetReadDeadline(time.Unix(1, 0))
			expectTimeout(t, 0, c.Read)
			c.SetReadDeadline(time.Time{})
		}
	})
}

// What was written before the deadline moved is not written again.
func TestWriteGoesOn(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, _ *piped, other net.Conn) {
		text := strings.Repeat("0123456789", 10)
		got := make(chan string)
		go func() {
			var all strings.Builder
			for all.Len() < len(text) {
				<-time.After(time.Minute)
				io.CopyN(&all, other, 30)
			}
			got <- all.String()
		}()
		c.SetWriteDeadline(time.Now().Add(90 * time.Second))
		time.AfterFunc(80*time.Second, func() { c.SetWriteDeadline(time.Now().Add(time.Hour)) })
		if n, err := io.WriteString(c, text); n != len(text) || err != nil {
			t.Errorf("%d bytes are written, with %v", n, err)
		}
		other.Close()
		if all := <-got; all != text {
			t.Errorf("%q arrives", all)
		}
	})
}

// A connection is kept for 75 seconds after an answer, whenever that was, and a
// request may take 60.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := newPipes(), new(connections)
		server := newServer(pixel.Handler{Hits: hits.NewStore(1 << 20)}, nil, io.Discard)
		go serve(server, p, open)
		defer server.Close()
		expectEnd := func(what string, conn net.Conn, after time.Duration) {
			t.Helper()
			began := time.Now()
			io.Copy(io.Discard, conn)
			if took := time.Since(began); took != after {
				t.Errorf("%s is cut off after %v, want %v", what, took, after)
			}
		}

		kept := p.dial()
		answers := bufio.NewReader(kept)
		for range 5 {
			io.WriteString(kept, "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\n\r\n")
			answer, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
			<-time.After(74 * time.Second)
		}
		synctest.Wait()
		if len(open.all) != 1 {
			t.Errorf("%d connections are known to be open, want 1", len(open.all))
		}
		io.WriteString(kept, "GET /pixel.gif HTTP/1.1\r\nHo")
		expectEnd("half a request", kept, time.Minute)

		idle := p.dial()
		io.WriteString(idle, "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n")
		expectEnd("an idle connection", idle, 75*time.Second)
		expectEnd("a silent one", p.dial(), time.Minute)
		unread := p.dial()
		go io.WriteString(unread, strings.Repeat("GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n", 100))
		<-time.After(19 * time.Second)
		if n, err := unread.Read(make([]byte, 1)); n != 1 {
			t.Errorf("an answer is cut off after 19 seconds: %v", err)
		}
		expectEnd("an answer that is read late", unread, 75*time.Second)
	})
}

// Requests over a kept connection tell the runtime few deadlines.
func TestDeadlinesOfManyRequests(t *testing.T) {
	deadlines(t, func(t *testing.T, c *conn, p *piped, other net.Conn) {
		go io.Copy(other, other)
		for range 100 {
			for _, timeout := range []time.Duration{75 * time.Second, 60 * time.Second} {
				c.SetReadDeadline(time.Now().Add(timeout))
			}
			c.SetWriteDeadline(time.Now().Add(20 * time.Second))
			c.Write([]byte("x"))
			c.SetWriteDeadline(time.Time{})
			c.SetReadDeadline(time.Unix(1, 0))
			c.SetReadDeadline(time.Time{})
			if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Fatalf("%d bytes and %v, want one", n, err)
			}
			<-time.After(10 * time.Millisecond)
		}
		if p.told > 5 {
			t.Errorf("%d deadlines were told for 100 requests", p.told)
		}
	})
}
