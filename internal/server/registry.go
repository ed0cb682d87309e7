package server

import (
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pixel-ping/internal/stats"
)

// DefaultConnections is how many connections are open at once unless the
// configuration says otherwise. The process stays below 1 GB with as many: the
// worst that FLOOD=full make soak does to a connection, a header of 15 kB over
// HTTP/2 that never ends, takes 105 kB.
const DefaultConnections = 8000

// The time limits of a connection. A sweep each second enforces them.
const (
	// idleTime is how long a connection may be idle. A page's later events find the
	// connection open, as they do with nginx. Node closes it after 6 seconds.
	idleTime = 75 * time.Second
	// requestTime is how long a connection may take from the accept, or from the first
	// byte of a later request, until its request begins, and from there until the
	// answer was handed to the system. Node gives a header as long.
	requestTime = 60 * time.Second
	// unreadTime is how long an answer that the client does not read protects its
	// connection from making room for another one. It is short, since 1,000 new
	// connections a second replace 500 within half a second: if each could protect
	// itself for longer than that, none would make room, and visitors would be refused.
	unreadTime = 250 * time.Millisecond
	// streamTime is how long an HTTP/2 connection may be busy while no stream ends. An
	// answer that waits for its client takes some 14 kB there, and maxStreams of them
	// may wait on one connection. A client that reads at all takes an answer of 35
	// bytes at once.
	streamTime = time.Second
)

// maxStreams is how many requests may be open at once on an HTTP/2 connection. A
// page needs some dozens at most; net/http's default is 250.
const maxStreams = 32

// state is what a connection is doing.
type state int

const (
	gone    state = iota // closed, or not registered yet
	leaving              // since a stop has closed its sending side: no request begins any more
	waiting              // since the accept, or since the first byte of a later request
	busy                 // since the handler was given a request; the answer may be on its way
	idle                 // since the last answer
	states               // the number of states
)

// A registry knows the open connections. Each state has a list of its
// connections in the order in which they came into the state, so the oldest is
// found at once, however many there are. The methods may be called by many
// goroutines at once.
type registry struct {
	limit     int  // how many connections there may be
	inherited bool // the listeners are not the Server's alone
	stderr    io.Writer
	about     string         // what a line about a setting begins with
	requests  sync.WaitGroup // requests whose handler has begun and not returned

	// accepting is the number of listeners from which a connection may still come: one
	// may have accepted a connection just before it was closed.
	accepting atomic.Int32

	mu        sync.Mutex
	lists     [states]list // that of gone stays empty
	open      int          // connections in the lists
	listeners []net.Listener
	stopping  bool
	closed    bool              // a stop has closed every connection; none is added any more
	stopped   chan struct{}     // closed at a stop, to end the sweeps
	crowded   int               // connections that were closed for want of room and not logged yet
	logged    time.Time         // when the crowded ones were logged last
	ended     stats.Connections // those that the registry has closed, by the reason; Open is not used
}

// list is a list of connections, the oldest first.
type list struct{ first, last *conn }

// add puts c at the end.
func (l *list) add(c *conn) {
	c.prev, c.next = l.last, nil
	if c.prev == nil {
		l.first = c
	} else {
		c.prev.next = c
	}
	l.last = c
}

// remove takes c out of the list.
func (l *list) remove(c *conn) {
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
	c.prev, c.next = nil, nil
}

// move brings c into another state, or into the same state anew. The caller holds
// the mutex.
func (g *registry) move(c *conn, to state, now time.Time) {
	if c.state != gone {
		g.lists[c.state].remove(c)
		g.open--
	}
	c.state, c.since = to, now
	if to != gone {
		g.lists[to].add(c)
		g.open++
	}
}

// listen keeps a listener for the stop. The first one starts the sweeps. After a
// stop, listen closes the listener and returns false.
func (g *registry) listen(listener net.Listener) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		listener.Close()
		return false
	}
	if g.listeners == nil {
		g.stopped = make(chan struct{})
		go g.sweepUntil(g.stopped)
	}
	g.listeners = append(g.listeners, listener)
	g.accepting.Add(1)
	return true
}

// add registers a connection that was just accepted. If there are as many as
// there may be, add closes another one to make room. It returns false if none can
// be closed, or after a stop; the caller then closes c.
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
		g.ended.Crowded++
		if victim = g.victim(now); victim == nil {
			g.mu.Unlock()
			return false
		}
		g.move(victim, gone, now)
	}
	g.move(c, waiting, now)
	g.mu.Unlock()
	if victim != nil {
		victim.tcp.Close() // returns when the descriptor is free
	}
	return true
}

// victim returns the connection that makes room for a new one: the one that has
// been idle longest, if any is idle. Otherwise it is the one that has been waiting
// longest. A connection that has been busy for unreadTime counts as waiting: its
// client has not read the answer. The result is nil if there is no such connection.
// The caller holds the mutex.
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

// hear notes the first byte since c became idle. Over HTTP/1.1 a request begins
// with that byte. Over HTTP/2 the byte may belong to a ping, so only a complete
// request ends the idleness.
func (g *registry) hear(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state == idle && !c.http2 {
		g.move(c, waiting, time.Now())
	}
}

// begin comes before each request is handled. If began is true, the caller handles
// the request, and calls requests.Done when the handler has returned. If began is
// false, c was closed, to make room, by a sweep or by a stop, and the caller must
// not handle the request. Closing takes the mutex as well, so a request that was cut
// off before it began is not counted. Last reports that the connection is to end
// with the answer.
func (g *registry) begin(c *conn, http2 bool) (began, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state <= leaving {
		return false, false
	}
	g.requests.Add(1)
	c.http2 = http2
	// Over HTTP/2, the client may have reset all streams by now, this one too. Then c
	// is not active, and does not become busy: nobody waits for the answer, and net/http
	// would not report the end of the request. If c is busy already, its time goes on,
	// since the answers of other streams may be unread. After maxStreams requests in
	// that time, one more shows that a stream has ended: then the time begins anew.
	if c.active.Load() && (c.state != busy || c.begun >= maxStreams) {
		g.move(c, busy, time.Now())
		c.begun = 0
	}
	c.begun++
	return true, g.stopping
}

// finish notes that no request is under way any more. Over HTTP/1.1, net/http has
// handed the answers to the system. Over HTTP/2, net/http has buffered the answers,
// and writes them next; sent then notes the rest.
func (g *registry) finish(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.active.Store(false)
	switch {
	case c.state == busy && c.http2:
		c.unsent.Store(true)
	case c.state == busy:
		g.answered(c)
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
		g.answered(c)
	}
}

// answered makes a busy connection idle, or ends it during a stop. The caller holds
// the mutex.
func (g *registry) answered(c *conn) {
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

// sweepUntil sweeps each second until stopped is closed.
func (g *registry) sweepUntil(stopped <-chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			g.sweep()
		case <-stopped:
			return
		}
	}
}

// sweep closes the connections that are over their time limits. At most once a
// minute, it logs how many connections were closed for want of room.
func (g *registry) sweep() {
	g.mu.Lock()
	now := time.Now()
	unused := g.takeOld(idle, now.Add(-idleTime))
	slow := slices.Concat(
		g.takeOld(waiting, now.Add(-requestTime)),
		g.takeOld(busy, now.Add(-requestTime)),
		g.takeUnreadStreams(now),
	)
	g.ended.Idle += int64(len(unused))
	g.ended.Slow += int64(len(slow))
	crowded := 0
	if g.crowded > 0 && now.Sub(g.logged) >= time.Minute {
		crowded, g.crowded, g.logged = g.crowded, 0, now
	}
	g.mu.Unlock()
	for _, c := range slices.Concat(unused, slow) {
		c.tcp.Close()
	}
	if crowded > 0 {
		fmt.Fprintf(g.stderr, "pixel-ping: %smaxconnections: connections closed for want of room: %d (%d may be open)\n",
			g.about, crowded, g.limit)
	}
}

// stats returns what the registry counts.
func (g *registry) stats() stats.Connections {
	g.mu.Lock()
	defer g.mu.Unlock()
	counted := g.ended
	counted.Open = int64(g.open)
	return counted
}

// takeOld removes the connections that came into a state at a time or before it, and
// returns them for the caller to close. The caller holds the mutex.
func (g *registry) takeOld(of state, at time.Time) (taken []*conn) {
	for c := g.lists[of].first; c != nil && !c.since.After(at); c = g.lists[of].first {
		g.move(c, gone, time.Time{})
		taken = append(taken, c)
	}
	return taken
}

// takeUnreadStreams removes the HTTP/2 connections that have been busy for
// streamTime, and returns them for the caller to close. The caller holds the mutex.
func (g *registry) takeUnreadStreams(now time.Time) (taken []*conn) {
	for c := g.lists[busy].first; c != nil && now.Sub(c.since) >= streamTime; {
		next := c.next
		if c.http2 {
			g.move(c, gone, time.Time{})
			taken = append(taken, c)
		}
		c = next
	}
	return taken
}
