package server

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
	"pixel-ping/internal/stats"
)

// A connection is kept for 75 seconds after an answer, whenever that was, and a
// request may take 60.
func TestTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p := startPiped(t, Limits{}, io.Discard)
		kept := p.dial()
		for range 5 {
			makeHit(t, kept)
			<-time.After(74 * time.Second)
		}
		synctest.Wait()
		if s.registry.open != 1 {
			t.Errorf("%d connections are known to be open, want 1", s.registry.open)
		}
		io.WriteString(kept, "GET /pixel.gif HTTP/1.1\r\nHo")
		expectEnd(t, "half a request", kept, time.Minute)

		slow := p.dial()
		go func() {
			for {
				if _, err := io.WriteString(slow, "G"); err != nil {
					return
				}
				<-time.After(time.Second)
			}
		}()
		expectEnd(t, "a request that drips", slow, time.Minute)
		idle := p.dial()
		makeHit(t, idle)
		expectEnd(t, "an idle connection", idle, 75*time.Second)
		expectEnd(t, "a silent one", p.dial(), time.Minute)
		unread := p.dial()
		go io.WriteString(unread, strings.Repeat(hit, 100))
		<-time.After(59 * time.Second)
		if n, err := unread.Read(make([]byte, 1)); n != 1 {
			t.Errorf("an answer is cut off after 59 seconds: %v", err)
		}
		<-time.After(3 * time.Second)
		if isOpen(unread) {
			t.Error("a connection whose answers are not read is open after a minute")
		}
		body := p.dial()
		go io.WriteString(body, "POST /pixel.gif HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		readAnswer(t, bufio.NewReader(body))
		expectEnd(t, "a body that does not come", body, time.Minute)
		synctest.Wait()
		if s.registry.open != 0 {
			t.Errorf("%d closed connections are kept", s.registry.open)
		}
		if got, want := s.Stats(), (stats.Connections{Idle: 1, Slow: 5}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// KeepAlive takes the place of the 75 seconds.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, p := startPiped(t, Limits{KeepAlive: 10 * time.Minute}, io.Discard)
		conn := p.dial()
		for range 2 {
			makeHit(t, conn)
			<-time.After(10*time.Minute - time.Second)
		}
		makeHit(t, conn)
		expectEnd(t, "an idle connection", conn, 10*time.Minute)
	})
}

// The connection that has been idle longest makes room for a new one.
func TestIdleLongestMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p := startPiped(t, Limits{Connections: 3}, io.Discard)
		var conns []net.Conn
		for range 3 {
			conns = append(conns, p.dial())
			<-time.After(time.Second)
		}
		for _, i := range []int{1, 0, 2} {
			makeHit(t, conns[i])
			<-time.After(time.Second)
		}
		makeHit(t, conns[1])
		synctest.Wait()
		for _, i := range []int{0, 2, 1} {
			if !isOpen(conns[i]) {
				t.Fatalf("connection %d is closed too soon", i)
			}
			makeHit(t, p.dial())
			synctest.Wait()
			if isOpen(conns[i]) {
				t.Errorf("connection %d has not made room", i)
			}
			<-time.After(time.Second)
		}
		if got, want := s.Stats(), (stats.Connections{Open: 3, Crowded: 3}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
	})
}

// Where none is idle, the connection that has gone longest without a request
// makes room: a silent one, one in its first header or in a later one.
func TestUnfinishedMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, p := startPiped(t, Limits{Connections: 3}, io.Discard)
		later := p.dial()
		makeHit(t, later)
		first, silent := p.dial(), p.dial()
		io.WriteString(first, "GET")
		<-time.After(time.Second)
		io.WriteString(later, "GET")
		synctest.Wait()
		for i, conn := range []net.Conn{first, silent, later} {
			if !isOpen(conn) {
				t.Fatalf("connection %d is closed too soon", i)
			}
			p.dial()
			synctest.Wait()
			if isOpen(conn) {
				t.Errorf("connection %d has not made room", i)
			}
		}
	})
}

// A connection makes no room while its request is answered, but one whose client
// has not read the answer for 250 ms does. What finds no room is closed.
func TestBusyMakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, entered, release := newPipes(), make(chan bool), make(chan bool)
		s := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entered <- true
			<-release
		}), nil, Limits{Connections: 1}, io.Discard)
		go s.Serve(p)
		defer s.Stop(t.Context())
		busy := p.dial()
		go io.WriteString(busy, hit)
		<-entered
		<-time.After(150 * time.Millisecond)
		refused := p.dial()
		synctest.Wait()
		if isOpen(refused) || !isOpen(busy) {
			t.Error("a request that is being answered has made room")
		}
		close(release)
		<-time.After(100 * time.Millisecond)
		p.dial()
		synctest.Wait()
		conn := bufio.NewReader(busy)
		if _, err := http.ReadResponse(conn, nil); err == nil {
			t.Error("an answer that nobody reads keeps its connection")
		}
	})
}

// A connection that is waiting makes room before one whose answer is unread if it has
// waited for longer, and after it otherwise.
func TestOldestOfWaitingAndUnreadMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &registry{limit: 3}
		older, unread, younger := newConn(t, g), newConn(t, g), newConn(t, g)
		for _, c := range []*conn{older, unread, younger} {
			g.add(c)
			if c == unread {
				g.begin(c)
				g.requests.Done()
			}
			<-time.After(250 * time.Millisecond)
		}
		for i, c := range []*conn{older, unread, younger} {
			if c.state == gone {
				t.Errorf("connection %d has made room too soon", i)
			}
			if g.add(newConn(t, g)); c.state != gone {
				t.Errorf("connection %d has not made room", i)
			}
		}
	})
}

// A request on a connection that was closed is not handled, though net/http has
// read it.
func TestClosedConnectionBeginsNothing(t *testing.T) {
	g := &registry{limit: 1}
	first, second := newConn(t, g), newConn(t, g)
	g.add(first)
	g.add(second)
	if began, _ := g.begin(first); began {
		t.Error("a request begins on a connection that has made room")
	}
	if began, _ := g.begin(second); !began {
		t.Error("a request does not begin on an open connection")
	}
	if third := newConn(t, g); g.add(third) {
		t.Error("a request that has begun does not protect its connection")
	}
	g.requests.Done()
}

// Connections that are closed for want of room are logged at most once a minute, with their number.
func TestMakingRoomIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stderr := rig.NewOutput()
		_, _, p := startPiped(t, Limits{Connections: 1}, stderr)
		for range 5 {
			p.dial()
		}
		<-time.After(1500 * time.Millisecond)
		p.dial()
		p.dial()
		<-time.After(58 * time.Second)
		const first = "pixel-ping: maxconnections: connections closed for want of room: 4 (1 may be open)\n"
		if got := stderr.String(); got != first {
			t.Errorf("the log is:\n%s", got)
		}
		<-time.After(3 * time.Second)
		if got, want := stderr.String(), first+strings.Replace(first, "4", "2", 1); got != want {
			t.Errorf("the log is:\n%s\nwant:\n%s", got, want)
		}
	})
}
