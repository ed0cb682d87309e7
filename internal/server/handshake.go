package server

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
)

// A tlsListener does the TLS handshakes of the connections that it accepts, each in a
// goroutine of its own. A handshake needs a large stack, which is free when that
// goroutine ends. In net/http's goroutine it would stay for as long as the connection
// is open: 8 of the 41 kB of an idle connection.
type tlsListener struct {
	acceptor
	config *tls.Config
	ready  chan accepted // results for Accept; closed after the last one
	failed error         // the error of Accept when ready is closed
}

// accepted is a result of Accept.
type accepted struct {
	conn net.Conn
	err  error
}

func newTLSListener(over acceptor, config *tls.Config) *tlsListener {
	l := &tlsListener{acceptor: over, config: config, ready: make(chan accepted)}
	go l.acceptAll()
	return l
}

// acceptAll accepts connections until the listener is closed or fails. After an
// error that passes, such as a lack of descriptors, it goes on when net/http has
// called Accept for the error: net/http makes a pause after each.
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
			// net/http asks for the error again, and answers a client that speaks plain HTTP.
			secure.HandshakeContext(context.Background())
			raw.(*conn).heard.Store(false)
			l.ready <- accepted{secure, nil}
		})
	}
	l.registry.accepting.Add(-1)
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
