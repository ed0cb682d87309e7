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
		s, _, p := startPiped(t, 0, io.Discard)
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

// The connection that has been idle longest makes room for a new one.
func TestIdleLongestMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, p := startPiped(t, 3, io.Discard)
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
		_, _, p := startPiped(t, 3, io.Discard)
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
// has not read the answer for unreadTime does. What finds no room is closed.
func TestBusyMakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, entered, release := newPipes(), make(chan bool), make(chan bool)
		s := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			entered <- true
			<-release
		}), nil, 1, io.Discard)
		go s.Serve(p)
		defer s.Stop(t.Context())
		busy := p.dial()
		go io.WriteString(busy, hit)
		<-entered
		<-time.After(unreadTime - 100*time.Millisecond)
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
		newConn := func() *conn {
			here, other := net.Pipe()
			t.Cleanup(func() { other.Close() })
			return &conn{tcp: &piped{Conn: here}, registry: g}
		}
		older, unread, younger := newConn(), newConn(), newConn()
		for _, c := range []*conn{older, unread, younger} {
			g.add(c)
			if c == unread {
				c.active.Store(true)
				g.begin(c, false)
				g.requests.Done()
			}
			<-time.After(unreadTime)
		}
		for i, c := range []*conn{older, unread, younger} {
			if c.state == gone {
				t.Errorf("connection %d has made room too soon", i)
			}
			if g.add(newConn()); c.state != gone {
				t.Errorf("connection %d has not made room", i)
			}
		}
	})
}

// A request on a connection that was closed is not handled, though net/http has
// read it.
func TestClosedConnectionBeginsNothing(t *testing.T) {
	g := &registry{limit: 1}
	newConn := func() *conn {
		here, other := net.Pipe()
		t.Cleanup(func() { other.Close() })
		return &conn{tcp: &piped{Conn: here}, registry: g}
	}
	first, second := newConn(), newConn()
	g.add(first)
	first.active.Store(true)
	g.add(second)
	if began, _ := g.begin(first, false); began {
		t.Error("a request begins on a connection that has made room")
	}
	second.active.Store(true)
	if began, _ := g.begin(second, false); !began {
		t.Error("a request does not begin on an open connection")
	}
	if third := newConn(); g.add(third) {
		t.Error("a request that has begun does not protect its connection")
	}
	g.requests.Done()
}

// HTTP/2 is idle when its last answer is written, not before its first request and
// not when it says something else; and a request that the client took back leaves
// nothing busy.
func TestStatesOverHTTP2(t *testing.T) {
	g := &registry{limit: 10}
	here, other := net.Pipe()
	defer here.Close()
	go io.Copy(io.Discard, other)
	c := &conn{tcp: &piped{Conn: here}, registry: g}
	expect := func(what string, want state) {
		t.Helper()
		if c.state != want {
			t.Errorf("%s: state %d, want %d", what, c.state, want)
		}
	}
	g.add(c)
	c.active.Store(true)
	g.finish(c)
	expect("after the settings", waiting)
	c.active.Store(true)
	g.begin(c, true)
	expect("in a request", busy)
	g.finish(c)
	expect("when the answer is ready", busy)
	c.Write([]byte("the answer"))
	expect("after the answer", idle)
	c.active.Store(true)
	g.begin(c, true)
	g.finish(c)
	c.active.Store(true)
	c.Write([]byte("the answer"))
	expect("when the answer is written and a further stream is open", busy)
	g.finish(c)
	c.Write([]byte("the answer"))
	expect("after both answers", idle)
	g.hear(c)
	expect("after a ping", idle)
	g.begin(c, true)
	expect("in a request whose stream was reset", idle)
}

// Over HTTP/2, a client that does not read an answer is closed after a second, even
// if it makes more requests in the meantime. Over HTTP/1.1, the rest of a request may
// still be on its way.
func TestUnreadStreamsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &registry{limit: 10}
		busyConn := func(http2 bool) *conn {
			here, other := net.Pipe()
			t.Cleanup(func() { other.Close() })
			c := &conn{tcp: &piped{Conn: here}, registry: g}
			g.add(c)
			c.active.Store(true)
			g.begin(c, http2)
			return c
		}
		over1, over2 := busyConn(false), busyConn(true)
		<-time.After(streamTime - time.Millisecond)
		g.begin(over2, true)
		g.sweep()
		if over2.state != busy {
			t.Error("a connection is closed too soon")
		}
		<-time.After(time.Millisecond)
		g.sweep()
		if over2.state != gone || over1.state != busy {
			t.Errorf("states %d and %d after %v, want %d over HTTP/2 and %d over HTTP/1.1",
				over2.state, over1.state, streamTime, gone, busy)
		}
		for range 3 {
			g.requests.Done()
		}
	})
}

// Requests that were answered before do not extend the second that a client has to
// read the answers of the streams that are open.
func TestAnsweredRequestsGiveNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, other := net.Pipe()
		defer other.Close()
		go io.Copy(io.Discard, other)
		g := &registry{limit: 1}
		c := &conn{tcp: &piped{Conn: here}, registry: g}
		g.add(c)
		request := func() {
			c.active.Store(true)
			g.begin(c, true)
			g.requests.Done()
		}
		for range maxStreams - 1 {
			request()
			g.finish(c)
			c.Write([]byte("the answer"))
		}
		request()
		<-time.After(streamTime - time.Millisecond)
		request()
		<-time.After(time.Millisecond)
		if g.sweep(); c.state != gone {
			t.Errorf("state %d after %v without the end of a stream, want %d", c.state, streamTime, gone)
		}
	})
}

// A client that reads its answers may have requests open all the time.
func TestStreamsThatGoOnAreNotClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, other := net.Pipe()
		defer other.Close()
		g := &registry{limit: 1}
		c := &conn{tcp: &piped{Conn: here}, registry: g}
		g.add(c)
		c.active.Store(true)
		for range 10 * maxStreams {
			if began, _ := g.begin(c, true); !began {
				t.Fatal("a connection is closed that makes 40 requests a second")
			}
			g.requests.Done()
			<-time.After(time.Second / 40)
			g.sweep()
		}
	})
}

// Connections that are closed for want of room are logged at most once a minute, with their number.
func TestMakingRoomIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stderr := rig.NewOutput()
		_, _, p := startPiped(t, 1, stderr)
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
