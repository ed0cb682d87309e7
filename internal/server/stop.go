package server

import (
	"context"
	"time"
)

const (
	// freshTime is how long a connection over which no byte of HTTP has come is kept
	// after its accept, and after the beginning of a stop: its first request may be on
	// its way, or its TLS handshake under way. It is the time of some round trips.
	freshTime = 250 * time.Millisecond
	// inheritedFreshTime takes its place after the accept with inherited sockets. New
	// connections wait for the next process then, and none is refused meanwhile. So
	// there is time for clients far away.
	inheritedFreshTime = time.Second
	// leaveTime is how long a client has to close its side, once ours is closed: time
	// for some round trips, in which it gets the rest of its answer.
	leaveTime = 250 * time.Millisecond
	// stopPoll is the time between two looks at what is left. It is short beside the
	// other times, and a look takes microseconds.
	stopPoll = 10 * time.Millisecond
)

// Stop accepts no more connections and ends those that are open. Idle ones end at once.
// Those over which no byte of a request has come end after a moment. The others may finish
// their requests until ctx ends; then Stop closes them. No handler runs after Stop has
// returned.
//
// http.Server's own Shutdown waits for connections that have never sent a byte,
// and its Close waits for each client that does not read TLS's close_notify.
func (s *Server) Stop(ctx context.Context) {
	s.registry.stop()
	ticker := time.NewTicker(stopPoll)
	defer ticker.Stop()
	for ctx.Err() == nil {
		accepting := s.registry.accepting.Load() > 0 // first: whoever has accepted one has registered it
		if s.registry.closeQuiet() == 0 && !accepting {
			break
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	s.registry.closeAll()
	s.registry.requests.Wait()
}

// Inherit tells the Server that another process also holds its listening sockets, and
// serves them next: connections that are not accepted wait for it. Inherit has to be called
// before Serve.
func (s *Server) Inherit() { s.registry.inherited = true }

// stop closes the listeners and ends the sweeps. From now on, each connection ends
// with its next answer.
func (g *registry) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping.IsZero() {
		return
	}
	g.stopping = time.Now()
	if g.stopped != nil {
		close(g.stopped)
	}
	for _, listener := range g.listeners {
		listener.Close()
	}
}

// closeQuiet ends the connections on which no request is under way, and returns
// how many are left.
func (g *registry) closeQuiet() int {
	g.mu.Lock()
	for c := g.lists[idle].first; c != nil; c = g.lists[idle].first {
		g.closeWrite(c)
	}
	now, fresh := time.Now(), freshTime
	if g.inherited {
		fresh = inheritedFreshTime
	}
	closed := g.takeOld(leaving, now.Add(-leaveTime))
	if now.Sub(g.stopping) >= freshTime {
		for c := g.lists[waiting].first; c != nil && now.Sub(c.since) >= fresh; {
			next := c.next
			if !c.heard {
				g.move(c, gone, time.Time{})
				closed = append(closed, c)
			}
			c = next
		}
	}
	open := g.open
	g.mu.Unlock()
	for _, c := range closed {
		c.raw.Close()
	}
	return open
}

// closeWrite lets the client see the end of the connection. What the client sends
// after that is read and not handled. The caller holds the mutex.
func (g *registry) closeWrite(c *conn) {
	g.move(c, leaving, time.Now())
	c.raw.CloseWrite()
}

// leave makes a connection that net/http closes leave during a stop. It reports whether
// the connection leaves, so that Close has to read on for a moment.
func (g *registry) leave(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopping.IsZero() && c.state > leaving {
		g.move(c, leaving, time.Now())
	}
	return c.state == leaving
}

// closeAll closes every connection that is left.
func (g *registry) closeAll() {
	g.mu.Lock()
	g.closed = true
	var all []*conn
	for of := range states {
		all = append(all, g.takeOld(of, time.Now())...)
	}
	g.mu.Unlock()
	for _, c := range all {
		c.raw.Close()
	}
}
