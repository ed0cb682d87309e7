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

// Limits bound what the connections of a Server can take. Zero fields are the defaults.
type Limits struct {
	// Connections is how many may be open at once; 0 means DefaultConnections. Fewer are
	// open if the system allows fewer descriptors.
	Connections int
	// KeepAlive is how long a connection may be idle; 0 means 75 seconds.
	KeepAlive time.Duration
}

const (
	// DefaultConnections is how many connections are open at once unless the
	// configuration says otherwise. Each takes at most 90 kB, whatever its client
	// does, and the keys in a flush at most 604 MB by default: 1.01 GB in all.
	DefaultConnections = 4500
	// defaultKeepAlive is how long a connection may be idle unless Limits say otherwise.
	// A page's later events find the connection open, as they do with nginx, whose
	// default is the same. Node closes it after 6 seconds.
	defaultKeepAlive = 75 * time.Second

	// requestTime is how long a request may take to arrive, and again how long its answer
	// may take to be handed to the system. Node gives a header as long.
	requestTime = 60 * time.Second
	// unreadTime is how long an answer that the client does not read protects its
	// connection from making room for another one. It is short, since 1,000 new
	// connections a second replace 500 within half a second: if each could protect
	// itself for longer than that, none would make room, and visitors would be refused.
	unreadTime = 250 * time.Millisecond
	// sweepInterval is the time between two sweeps, which enforce KeepAlive and
	// requestTime. A sweep looks only at the connections that it closes, so it is cheap.
	sweepInterval = time.Second
	// logInterval is the least time between two lines about connections that were closed
	// for want of room: a flood closes thousands in a second.
	logInterval = time.Minute
)

// state is what a connection is doing.
type state int

const (
	gone    state = iota // closed, or not registered yet
	leaving              // since a stop ended its sending side: no request begins any more
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
	limit     int           // how many connections there may be
	keepAlive time.Duration // how long each may be idle
	inherited bool          // see Inherit
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
	stopping  time.Time         // when a stop has begun; zero before
	closed    bool              // a stop has closed every connection; none is added any more
	stopped   chan struct{}     // closed at a stop, to end the sweeps
	crowded   int               // connections that were closed for want of room and not logged yet
	logged    time.Time         // when the crowded ones were logged last
	counted   stats.Connections // all but Open
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
	if !g.stopping.IsZero() {
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
		g.counted.Crowded++
		if victim = g.victim(now); victim == nil {
			g.mu.Unlock()
			return false
		}
		g.move(victim, gone, now)
	}
	g.move(c, waiting, now)
	g.mu.Unlock()
	if victim != nil {
		victim.raw.Close() // returns when the descriptor is free
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

// hear notes that something of a request has come. The first byte ends idleness.
func (g *registry) hear(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.heard = true
	if c.state == idle {
		g.move(c, waiting, time.Now())
	}
}

// begin comes before each request is handled. If began is true, the caller handles
// the request, and calls requests.Done when the handler has returned. If began is
// false, c was closed, to make room, by a sweep or by a stop, and the caller must
// not handle the request. Closing takes the mutex as well, so a request that was cut
// off before it began is not counted. If last is true, a stop has begun, and the
// connection ends with this answer.
func (g *registry) begin(c *conn) (began, last bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.state <= leaving {
		return false, false
	}
	g.requests.Add(1)
	g.move(c, busy, time.Now())
	return true, !g.stopping.IsZero()
}

// finish notes that net/http has handed an answer to the system, and would read the next
// request. During a stop, the connection ends instead: its request began before the stop.
func (g *registry) finish(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case c.state != busy:
	case !g.stopping.IsZero():
		g.closeWrite(c)
	default:
		g.move(c, idle, time.Now())
	}
}

// failHandshake counts a TLS handshake that has failed.
func (g *registry) failHandshake() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counted.FailedHandshakes++
}

// remove forgets a connection that is closed.
func (g *registry) remove(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.move(c, gone, time.Time{})
}

// sweepUntil sweeps each second until stopped is closed.
func (g *registry) sweepUntil(stopped <-chan struct{}) {
	ticker := time.NewTicker(sweepInterval)
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

// sweep closes the connections that are over their time limits. At most once in each
// logInterval, it logs how many connections were closed for want of room.
func (g *registry) sweep() {
	g.mu.Lock()
	now := time.Now()
	unused := g.takeOld(idle, now.Add(-g.keepAlive))
	slow := slices.Concat(g.takeOld(waiting, now.Add(-requestTime)), g.takeOld(busy, now.Add(-requestTime)))
	g.counted.Idle += int64(len(unused))
	g.counted.Slow += int64(len(slow))
	crowded := 0
	if g.crowded > 0 && now.Sub(g.logged) >= logInterval {
		crowded, g.crowded, g.logged = g.crowded, 0, now
	}
	g.mu.Unlock()
	for _, c := range slices.Concat(unused, slow) {
		c.raw.Close()
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
	now := g.counted
	now.Open = int64(g.open)
	return now
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
