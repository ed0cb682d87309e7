package main

import (
	"net"
	"sync"
)

// A listener accepts connections as conns.
type listener struct {
	net.Listener
	open *connections
}

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{tcp: accepted.(tcp), open: l.open}
	l.open.add(c)
	return c, nil
}

// connections are those that are open. Its methods may be called by many
// goroutines at once.
type connections struct {
	mu  sync.Mutex
	all map[*conn]bool
	cut bool
}

func (o *connections) add(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cut {
		c.tcp.Close()
		return
	}
	if o.all == nil {
		o.all = make(map[*conn]bool)
	}
	o.all[c] = true
}

func (o *connections) remove(c *conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, c)
}

// cutAll closes all connections, and those that are yet to be accepted, without
// TLS's farewell. http.Server's own Close says it to one after the other, and
// waits for each that does not read.
func (o *connections) cutAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cut = true
	for c := range o.all {
		c.tcp.Close()
	}
}
