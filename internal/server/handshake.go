package server

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// A tlsListener does the TLS handshakes of the connections that it accepts. Each
// has a goroutine of its own, whose large stack is free after the handshake:
// net/http would keep it for as long as the connection is open, 8 kB of 41.
type tlsListener struct {
	acceptor
	config *tls.Config
	ready  chan accepted // what Accept returns next; closed after the last connection
	failed error         // why there is no other connection; set before ready is closed
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func newTLSListener(over acceptor, config *tls.Config) *tlsListener {
	l := &tlsListener{acceptor: over, config: config, ready: make(chan accepted)}
	go l.acceptAll()
	return l
}

// acceptAll accepts connections until the listener is closed. An error that does
// not end it, such as a lack of descriptors, waits for Accept: net/http makes a
// pause after each.
func (l *tlsListener) acceptAll() {
	var handshakes sync.WaitGroup
	for {
		raw, err := l.acceptor.Accept()
		if err != nil {
			temporary, ok := err.(interface{ Temporary() bool })
			if !ok || !temporary.Temporary() {
				l.failed = err
				break
			}
			l.ready <- accepted{nil, err}
			continue
		}
		handshakes.Go(func() {
			secure := tls.Server(raw, l.config)
			secure.HandshakeContext(context.Background()) // net/http sees its error, and answers plain HTTP
			raw.(*conn).heard.Store(false)
			l.ready <- accepted{secure, nil}
		})
	}
	handshakes.Wait()
	close(l.ready)
}

// Accept returns the next connection whose handshake is over.
func (l *tlsListener) Accept() (net.Conn, error) {
	next, ok := <-l.ready
	if !ok {
		return nil, l.failed
	}
	return next.conn, next.err
}
