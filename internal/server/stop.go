package server

import (
	"context"
	"time"
)

const (
	// freshTime is the age at which a stop closes a connection on which nothing has
	// come yet. Before that, its first request may be on its way.
	freshTime = 250 * time.Millisecond
	// inheritedFreshTime takes its place with inherited sockets. New connections wait
	// for the next process then, and none is refused meanwhile. So there is time for
	// handshakes and for clients far away.
	inheritedFreshTime = time.Second
	// leaveTime is how long a client has to close its side, once ours is closed.
	leaveTime = 250 * time.Millisecond
)

// Stop accepts no more connections and ends those that are open. Connections
// without a request under way end at once. The others may finish their requests
// until ctx ends; then Stop closes them. No handler runs after Stop has returned.
//
// http.Server's own Shutdown waits for connections that have never sent a byte,
// and its Close waits for each client that does not read TLS's close_notify.
func (s *Server) Stop(ctx context.Context) {
	s.registry.stop()
	ticker := time.NewTicker(10 * time.Millisecond)
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

// Inherit says that the listeners are not the Server's alone: the process that has
// passed them on keeps them open, and connections that were not accepted wait for
// the next process. Inherit comes before Serve.
func (s *Server) Inherit() { s.registry.inherited = true }

// stop closes the listeners and ends the sweeps. From now on, each connection ends
// with its next answer.
func (g *registry) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listeners != nil && !g.stopping {
		close(g.stopped)
	}
	g.stopping = true
	for _, listener := range g.listeners {
		listener.Close()
	}
}

// closeQuiet ends the connections on which no request is under way, and returns
// how many are left.
func (g *registry) closeQuiet() int {
	g.mu.Lock()
	now, fresh := time.Now(), freshTime
	if g.inherited {
		fresh = inheritedFreshTime
	}
	for c := g.lists[idle].first; c != nil; c = g.lists[idle].first {
		g.closeWrite(c)
	}
	closed := g.takeOld(leaving, now.Add(-leaveTime))
	for c := g.lists[waiting].first; c != nil && now.Sub(c.since) >= fresh; {
		next := c.next
		if c.greeted || !c.heard.Load() {
			g.move(c, gone, time.Time{})
			closed = append(closed, c)
		}
		c = next
	}
	open := g.open
	g.mu.Unlock()
	for _, c := range closed {
		c.tcp.Close()
	}
	return open
}

// closeWrite lets the client see the end of the connection. What the client sends
// after that is read and not handled. The caller holds the mutex.
func (g *registry) closeWrite(c *conn) {
	g.move(c, leaving, time.Now())
	c.tcp.CloseWrite()
}

// leave reports whether a connection that net/http closes is leaving, so that Close
// has to read on for a moment. During a stop, every open one is; leave closes its
// sending side if that is still open.
func (g *registry) leave(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping && c.state > leaving {
		g.closeWrite(c)
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
		c.tcp.Close()
	}
}
