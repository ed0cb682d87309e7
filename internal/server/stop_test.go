package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/listen"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/rig"
)

// stopWithin stops a server that may take that long for requests, and returns
// how long it took.
func stopWithin(t *testing.T, s *Server, limit time.Duration) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	began := time.Now()
	s.Stop(ctx)
	return time.Since(began)
}

// A stop waits for a request that is under way, and for nothing else: not for
// idle connections, and 250 ms for new ones that have not sent a byte.
func TestStopWaitsForRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p := startPiped(t, Limits{}, io.Discard)
		silent, idle := p.dial(), p.dial()
		defer silent.Close()
		go io.Copy(io.Discard, silent)
		makeHit(t, idle)
		<-time.After(time.Second)
		if took := stopWithin(t, s, 2*time.Second); took > 250*time.Millisecond {
			t.Errorf("a stop with idle connections took %v", took)
		}

		s, store, p := startPiped(t, Limits{}, io.Discard)
		fresh, half := p.dial(), p.dial()
		io.WriteString(half, "GET /pixel.gif?key=half HTTP/1.1\r\n")
		go func() {
			<-time.After(200 * time.Millisecond)
			io.WriteString(fresh, hit)
		}()
		go func() {
			<-time.After(time.Second)
			io.WriteString(half, "Host: x\r\n\r\n")
		}()
		answers := make(chan *http.Response, 2)
		for _, conn := range []net.Conn{fresh, half} {
			go func() {
				answers <- readAnswer(t, bufio.NewReader(conn))
				conn.Close()
			}()
		}
		if took := stopWithin(t, s, 2*time.Second); took < time.Second || took > 1500*time.Millisecond {
			t.Errorf("a stop took %v, want the second that a request takes", took)
		}
		for range 2 {
			if answer := <-answers; !answer.Close {
				t.Error("the answer does not say that the connection ends")
			}
		}
		if got := store.Stats().Pending; got != 2 {
			t.Errorf("%d hits are counted, want 2", got)
		}
	})
}

// With an inherited listener, a stop waits a second for the first byte over new
// connections, and not for silent ones that are older.
func TestStopWithInheritedListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store, p := startPiped(t, Limits{}, io.Discard)
		s.Inherit()
		silent := p.dial()
		defer silent.Close()
		go io.Copy(io.Discard, silent)
		<-time.After(time.Second)
		fresh := p.dial()
		synctest.Wait()
		go func() {
			<-time.After(900 * time.Millisecond)
			makeHit(t, fresh)
			fresh.Close()
		}()
		if took := stopWithin(t, s, 2*time.Second); took < 900*time.Millisecond || took > time.Second {
			t.Errorf("a stop took %v, want the 900ms until the request came", took)
		}
		if got := store.Stats().Pending; got != 1 {
			t.Errorf("%d hits are counted, want 1", got)
		}
	})
}

// late is a listener that accepts a connection just before it is closed, and returns
// it some time after that.
type late struct {
	pipes
	after time.Duration
}

func (l late) Accept() (net.Conn, error) {
	<-l.closed
	if len(l.conns) > 0 {
		<-time.After(l.after)
		return &piped{Conn: <-l.conns}, nil
	}
	return nil, net.ErrClosed
}

// A connection that was accepted just before a stop is answered.
func TestStopWaitsForAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, p := hits.NewStore(1<<20), newPipes()
		s := New(pixel.Handler{Hits: store}, nil, Limits{}, io.Discard)
		go s.Serve(late{p, time.Second})
		synctest.Wait()
		conn := p.dial()
		answered := make(chan bool)
		go func() {
			makeHit(t, conn)
			conn.Close()
			close(answered)
		}()
		stopWithin(t, s, 2*time.Second)
		<-answered
		if got := store.Stats().Pending; got != 1 {
			t.Errorf("%d hits are counted, want 1", got)
		}
	})
}

// At its time limit a stop closes everything, and no request begins after that.
func TestStopAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store, p := startPiped(t, Limits{}, io.Discard)
		most := s.MaxConnections() // fewer than the default where few files may be open
		half, unread := p.dial(), p.dial()
		defer half.Close()
		defer unread.Close()
		io.WriteString(half, "GET /pixel.gif?key=half HTTP/1.1\r\n")
		go io.WriteString(unread, hit)
		synctest.Wait()
		began := time.Now()
		if took := stopWithin(t, s, 2*time.Second); took != 2*time.Second {
			t.Errorf("a stop took %v, want 2s", took)
		}
		if _, err := io.WriteString(half, "Host: x\r\n\r\n"); err == nil || time.Since(began) > 2*time.Second {
			t.Error("a connection is open after the stop")
		}
		if got := store.Stats().Pending; got != 1 {
			t.Errorf("%d hits are counted, want 1", got)
		}
		if s.registry.add(newConn(t, &s.registry)) {
			t.Error("a connection is accepted after the stop")
		}
		if got := s.MaxConnections(); got != most {
			t.Errorf("%d connections may be open according to a stopped server, want %d", got, most)
		}
	})
}

// A connection that is answered during a stop ends with its answer, and a stop does
// not return before the handler does.
func TestStopDuringARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, release := newPipes(), make(chan bool)
		s := New(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }), nil, Limits{}, io.Discard)
		go s.Serve(p)
		conn := p.dial()
		defer conn.Close()
		io.WriteString(conn, hit)
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { close(release) })
		if stopWithin(t, s, 2*time.Second); time.Since(began) != 5*time.Second {
			t.Errorf("a stop took %v, want the 5s of the handler", time.Since(began))
		}
	})

	g := &registry{limit: 1}
	c := newConn(t, g)
	g.add(c)
	g.begin(c)
	g.stop()
	if g.finish(c); c.state != leaving || !c.raw.(*piped).closedWrite.Load() {
		t.Errorf("state %d after an answer during a stop, want %d", c.state, leaving)
	}
	if began, _ := g.begin(c); began {
		t.Error("a request begins after that")
	}
}

// After a stop, Serve closes its listener.
func TestServeAfterStop(t *testing.T) {
	s, p := New(http.NotFoundHandler(), nil, Limits{}, io.Discard), newPipes()
	s.Stop(t.Context())
	if err := s.Serve(p); err != http.ErrServerClosed {
		t.Errorf("error %v, want %v", err, http.ErrServerClosed)
	}
	if _, err := p.Accept(); err == nil {
		t.Error("the listener is open")
	}
}

// Answers to pipelined requests reach their client, though the connection ends
// with requests unread: it is not reset.
func TestStopKeepsAnswers(t *testing.T) {
	listeners, err := listen.TCP(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	store := hits.NewStore(1 << 20)
	s := New(pixel.Handler{Hits: store}, nil, Limits{}, io.Discard)
	go s.Serve(listeners[0])
	var clients []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", listeners[0].Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(rig.Deadline))
		clients = append(clients, conn)
		go io.WriteString(conn, strings.Repeat(hit, 5000))
	}
	first := make([]byte, 1)
	for _, conn := range clients {
		if _, err := io.ReadFull(conn, first); err != nil {
			t.Fatal(err)
		}
	}
	var answered atomic.Int64
	var reading sync.WaitGroup
	for _, conn := range clients { // all at once: a stop waits a moment only for those that do not read
		reading.Go(func() {
			all, err := io.ReadAll(conn)
			if err != nil {
				t.Errorf("a connection ends with %v", err)
			}
			answered.Add(int64(strings.Count("H"+string(all), "HTTP/1.1 200")))
		})
	}
	stopWithin(t, s, rig.Deadline)
	reading.Wait()
	if counted := store.Stats().Pending; counted != answered.Load() {
		t.Errorf("%d hits are counted, and %d answered", counted, answered.Load())
	}
}

// So does the answer to a request that arrives while the server stops, though more
// requests follow it unread.
func TestStopKeepsTheLastAnswer(t *testing.T) {
	listeners, err := listen.TCP(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	s := New(pixel.Handler{Hits: hits.NewStore(1 << 20)}, nil, Limits{}, io.Discard)
	go s.Serve(listeners[0])
	conn, err := net.Dial("tcp", listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	limit := time.Now().Add(rig.Deadline)
	conn.SetDeadline(limit)
	wait := func(what string, reached func() bool) {
		t.Helper()
		for ; ; <-time.After(time.Millisecond) {
			s.registry.mu.Lock()
			done := reached()
			s.registry.mu.Unlock()
			if done {
				return
			}
			if time.Now().After(limit) {
				t.Fatal(what)
			}
		}
	}
	io.WriteString(conn, hit[:10])
	wait("the request does not begin", func() bool {
		first := s.registry.lists[waiting].first
		return first != nil && first.heard
	})
	stopped := make(chan bool)
	go func() {
		stopWithin(t, s, rig.Deadline)
		close(stopped)
	}()
	wait("the stop does not begin", func() bool { return !s.registry.stopping.IsZero() })
	go io.WriteString(conn, hit[10:]+strings.Repeat(hit, 5000))
	all, err := io.ReadAll(conn)
	if answers := strings.Count(string(all), "HTTP/1.1 200"); answers != 1 || err != nil {
		t.Errorf("%d answers, and then %v; want one, and the end of the connection", answers, err)
	}
	<-stopped
}

// Clients that do not read TLS's close_notify do not hold up a stop.
func TestStopIsNotHeldUpByTLS(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		s, p := startTLS(t, certificate)
		for range 4 {
			makeHit(t, dialTLS(t, p))
		}
		synctest.Wait()
		if took := stopWithin(t, s, 2*time.Second); took > 2*time.Second {
			t.Errorf("a stop took %v", took)
		}
	})
}
