package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// An acceptor accepts connections as conns.
type acceptor struct {
	net.Listener
	tls      *tls.Config // nil for plain HTTP
	registry *registry
}

// Accept returns the next connection for which there is room.
func (a acceptor) Accept() (net.Conn, error) {
	for {
		accepted, err := a.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: accepted, raw: accepted.(rawConn), registry: a.registry}
		if a.tls != nil {
			c.Conn = tls.Server(&tlsInput{Conn: accepted}, a.tls)
		}
		if a.registry.add(c) {
			return c, nil
		}
		accepted.Close()
	}
}

// A rawConn is what the registry needs of a connection over TCP or over a Unix socket.
type rawConn interface {
	net.Conn
	CloseWrite() error
}

// A conn is a connection as net/http reads and writes it. Over TLS, its bytes are those
// of HTTP, so a handshake is not taken for the beginning of a request.
type conn struct {
	net.Conn         // raw, or TLS over it
	raw      rawConn // the registry closes it without TLS's farewell, which can block
	registry *registry

	// The mutex of the registry guards these.
	state      state
	since      time.Time // when state began
	prev, next *conn     // in the list of state
	heard      bool      // a byte of HTTP has come since the accept
}

// Read reads, and tells the registry that something of a request has come. Over TLS, the
// first Read does the handshake: net/http does not see that there is TLS, and so keeps no
// tls.ConnectionState for each connection.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	secure, overTLS := c.Conn.(*tls.Conn)
	if n > 0 {
		c.registry.hear(c)
		if overTLS {
			secure.NetConn().(*tlsInput).unheard = 0
		}
	} else if overTLS && !ended(err) && !secure.ConnectionState().HandshakeComplete {
		c.failHandshake(err)
	}
	return n, err
}

// A tlsInput is the connection that TLS reads. It bounds what TLS keeps in memory: a
// message of a handshake may have 256 kB, and a client may send it byte by byte.
type tlsInput struct {
	net.Conn
	unheard int // bytes that TLS has read since it last returned a byte of HTTP
}

// maxUnheard bounds tlsInput.unheard. There has to be room for a handshake, which takes
// 2 kB, or 6 kB with large tickets and a second ClientHello, and then for one record of
// 16.6 kB.
const maxUnheard = 24 << 10

// Read reads, unless TLS has read maxUnheard bytes without a byte of HTTP.
func (in *tlsInput) Read(p []byte) (int, error) {
	if in.unheard == maxUnheard {
		return 0, errors.New("too many bytes of TLS without a request")
	}
	n, err := in.Conn.Read(p[:min(len(p), maxUnheard-in.unheard)])
	in.unheard += n
	return n, err
}

// ended reports whether err says that the connection has ended, or that net/http has
// interrupted a Read; it does so after each answer.
func ended(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return err == io.EOF || err == io.ErrUnexpectedEOF || ok && (op.Op == "read" || op.Op == "write")
}

// failHandshake counts a handshake that has failed, and answers a client that speaks
// plain HTTP.
func (c *conn) failHandshake(err error) {
	c.registry.failHandshake()
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok && plain.Conn != nil {
		io.WriteString(c.raw, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}

// CloseWrite ends the sending side. net/http does so after the answer to a request that it
// has not read to its end.
func (c *conn) CloseWrite() error {
	if secure, ok := c.Conn.(*tls.Conn); ok {
		secure.CloseWrite()
	}
	return c.raw.CloseWrite()
}

// Close closes the connection. During a stop it first closes the sending side and
// reads on, until the client closes its side or leaveTime is over: the system resets
// a connection that is closed with something unread, and the client would lose
// answers that are on their way.
func (c *conn) Close() error {
	if c.registry.leave(c) {
		c.CloseWrite()
		c.raw.SetReadDeadline(time.Now().Add(leaveTime))
		io.Copy(io.Discard, c.raw)
	}
	c.registry.remove(c)
	return c.Conn.Close()
}
