package server

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// DefaultConnections is how many connections are open at once unless the
// configuration says otherwise.
const DefaultConnections = 12000

// The time limits of a connection. A sweep each second enforces them.
const (
	// A page's later events find the connection open, as they do with nginx.
	// Node closes an idle connection after 6 seconds.
	idleTime = 75 * time.Second
	// From the accept, or the first byte of a later request, until the answer was
	// handed to the system. Node gives a header as long.
	requestTime = 60 * time.Second
	// An answer that the client has not read for this long does not keep its
	// connection from making room for another one. A thousand new connections a
	// second replace 500 within half a second. If all of these could keep answers
	// unread for longer, none would make room, and visitors would be refused.
	unreadTime = 250 * time.Millisecond
	// Over HTTP/2, an answer that waits for its client takes some 14 kB, and there may
	// be maxStreams of them on a connection. A client that reads at all makes room for
	// one of 35 bytes at once.
	streamTime = time.Second
	// maxStreams is how many requests may be open at once on an HTTP/2 connection. A
	// page needs some dozens at most; net/http's default is 250.
	maxStreams = 32
)

// state is what a connection is doing.
type state int

const (
	gone    state = iota // closed, or not registered yet
	leaving              // since a stop has closed its sending side: no request begins any more
	waiting              // since the accept, or since the first byte of a later request
	busy                 // since the handler was given a request; the answer may be on its way
	idle                 // since the last answer
	states
)

// A registry knows the open connections. Each state has a list of its
// connections in the order in which they came into the state, so the oldest is
// found at once, however many there are. The methods may be called by many
// goroutines at once.
type registry struct {
	limit    int // how many connections there may be
	stderr   io.Writer
	requests sync.WaitGroup // requests whose handler has begun and not returned

	mu        sync.Mutex
	lists     [states]list
	open      int // connections in the lists
	listeners []net.Listener
	stopping  bool
	closed    bool          // a stop has closed every connection; none is added any more
	stopped   chan struct{} // closed at a stop, to end the sweeps
	crowded   int           // connections that made room, or found none, and were not logged yet
	logged    time.Time     // when the crowded ones were logged last
}

// list is a list of connections, the oldest first.
type list struct{ first, last *conn }

// move puts c at the end of the list of another state. The caller holds the
// mutex.
func (g *registry) move(c *conn, to state, now time.Time) {
	if c.state != gone {
		g.open--
		l := &g.lists[c.state]
		if c.prev == nil {
			l.first = c.next
		} else {
			c.prev.next = c.next
		}
		if c.next == nil {
			l.last = c.prev
		} else {
			c.next.prev = c.prev
		}
	}
	c.state, c.since, c.prev, c.next = to, now, nil, nil
	if to != gone {
		g.open++
		l := &g.lists[to]
		if c.prev = l.last; c.prev == nil {
			l.first = c
		} else {
			c.prev.next = c
		}
		l.last = c
	}
}

// add registers a connection that was just accepted. If there are as many as
// there may be, it closes one of them. It returns false if none can be closed.
func (g *registry) add(c *conn) bool {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return false
	}
	now := time.Now()
	var victim *conn
	if g.open >= g.limit {
		g.crowded++
		if victim = g.victim(now); victim == nil {
			g.mu.Unlock()
			return false
		}
		g.move(victim, gone, now)
	}
	g.move(c, waiting, now)
	g.mu.Unlock()
	if victim != nil {
		victim.tcp.Close() // which returns when the descriptor is free
	}
	return true
}

// victim returns the connection that makes room for a new one: the one that has
// been idle longest. If none is idle, it is the one that has gone longest without
// finishing a request. A busy connection is one of these after unreadTime, when
// its client has not read the answer. The caller holds the mutex.
func (g *registry) victim(now time.Time) *conn {
	if c := g.lists[idle].first; c != nil {
		return c
	}
	oldest, unread := g.lists[waiting].first, g.lists[busy].first
	if unread != nil && now.Sub(unread.since) >= unreadTime && (oldest == nil || unread.since.Before(oldest.since)) {
		return unread
	}
	return oldest
}

// hear notes the first byte since the accept, or since c became idle. Over
// HTTP/1.1 a request begins with it. Over HTTP/2 it may be a ping, so only a
// complete request ends the idleness.
func (g *registry) hear(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state == idle && !c.http2 {
		g.move(c, waiting, time.Now())
	}
}

// begin comes before each request is handled. It returns false if c was closed,
// to make room or by a stop. Both take the mutex: a connection is closed before
// its request begins, and then the request is not handled, or it is protected.
// Last reports that the connection is to end with the answer. The caller calls
// requests.Done when the handler has returned, if begin has returned true.
func (g *registry) begin(c *conn, http2 bool) (began, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state <= leaving {
		return false, false
	}
	g.requests.Add(1)
	c.http2 = http2
	// It is not active if the client has reset all its streams by now. net/http
	// reports no end of such a request, and nobody waits for its answer. A connection
	// that was busy all along is on its way if it has begun more requests than can be
	// open at once: some have ended.
	if c.active.Load() && (c.state != busy || c.begun%maxStreams == 0) {
		g.move(c, busy, time.Now())
	}
	c.begun++
	return true, g.stopping
}

// finish notes that no request is under way any more. Over HTTP/1.1, the answers
// were handed to the system. Over HTTP/2, net/http has buffered them, and writes them
// after this.
func (g *registry) finish(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.active.Store(false)
	switch {
	case c.state == busy && c.http2:
		c.unsent.Store(true)
	case c.state == busy:
		g.rest(c)
	case c.state == waiting:
		c.greeted = true
	}
}

// sent notes that net/http has written the answers that it had buffered.
func (g *registry) sent(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.unsent.Store(false)
	if c.state == busy && !c.active.Load() {
		g.rest(c)
	}
}

// rest ends the time in which c is busy. The caller holds the mutex.
func (g *registry) rest(c *conn) {
	if g.stopping {
		g.closeWrite(c)
		return
	}
	c.heard.Store(false)
	g.move(c, idle, time.Now())
}

// remove forgets a connection that is closed.
func (g *registry) remove(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.move(c, gone, time.Time{})
}

// sweep closes the connections that are over their time limits. It logs how many
// had to make room, at most once a minute.
func (g *registry) sweep() {
	g.mu.Lock()
	now := time.Now()
	var expired []*conn
	for _, of := range []struct {
		state state
		limit time.Duration
	}{{idle, idleTime}, {waiting, requestTime}, {busy, requestTime}} {
		expired = append(expired, g.takeOlder(of.state, now.Add(-of.limit))...)
	}
	for c := g.lists[busy].first; c != nil && now.Sub(c.since) >= streamTime; {
		next := c.next
		if c.http2 {
			g.move(c, gone, now)
			expired = append(expired, c)
		}
		c = next
	}
	crowded := 0
	if g.crowded > 0 && now.Sub(g.logged) >= time.Minute {
		crowded, g.crowded, g.logged = g.crowded, 0, now
	}
	g.mu.Unlock()
	for _, c := range expired {
		c.tcp.Close()
	}
	if crowded > 0 {
		fmt.Fprintf(g.stderr, "pixel-ping: maxconnections: %d connections were closed to make room for new ones (%d may be open)\n",
			crowded, g.limit)
	}
}

// takeOlder removes the connections from the list of a state that came into it at
// that time or before, and returns them for the caller to close. The caller holds
// the mutex.
func (g *registry) takeOlder(of state, than time.Time) (taken []*conn) {
	for c := g.lists[of].first; c != nil && !c.since.After(than); c = g.lists[of].first {
		g.move(c, gone, time.Time{})
		taken = append(taken, c)
	}
	return taken
}
