// Package server accepts connections and bounds what they can take. net/http
// speaks HTTP over them; the package adds what net/http leaves open: how many
// connections there may be, which of them makes room for a new one, how long
// each may idle or take for a request, and how a stop ends them.
//
// One registry knows each connection, its state, and when that state began. A
// connection is waiting until its first request is complete, busy while a
// request is answered, and idle after that:
//
//	accepted ──▶ waiting ──▶ busy ──▶ idle ──▶ waiting (the first byte of the next request) ──▶ …
//
// Read the files as a connection lives: server.go makes a Server of an http.Server,
// conn.go accepts and reads, registry.go has the bounds, and stop.go ends what is left.
package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"pixel-ping/internal/stats"
)

// Server serves one handler on any number of listeners. Its methods may be
// called by many goroutines at once.
type Server struct {
	http     http.Server
	handler  http.Handler
	tls      *tls.Config // nil for plain HTTP; not http.TLSConfig, which net/http changes in Serve
	registry registry
}

// New returns a Server that serves nothing yet. If certificate is nil, the Server speaks
// plain HTTP. Otherwise it speaks HTTPS, and certificate returns the certificate for a
// handshake, as tls.Config.GetCertificate does. Both are HTTP/1.1, as with the original.
//
// The Server writes what the operator should know to stderr, a line each.
func New(handler http.Handler, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error),
	limits Limits, stderr io.Writer) *Server {
	s := &Server{handler: handler}
	s.registry.limit = limitConnections(cmp.Or(limits.Connections, DefaultConnections))
	s.registry.keepAlive = cmp.Or(limits.KeepAlive, defaultKeepAlive)
	s.registry.stderr = stderr
	s.http = http.Server{
		Handler:                      http.HandlerFunc(s.serveHTTP),
		Protocols:                    new(http.Protocols),
		DisableGeneralOptionsHandler: true,     // OPTIONS * is a 404 as well
		MaxHeaderBytes:               16 << 10, // Node's limit; net/http adds 4 kB of slack
		ConnState:                    s.followState,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		ErrorLog: log.New(&errorLog{stderr: stderr}, "", 0),
	}
	s.http.Protocols.SetHTTP1(true)
	limitHeaders(&s.http)
	if certificate != nil {
		s.tls = &tls.Config{GetCertificate: certificate, NextProtos: []string{"http/1.1"}}
	}
	return s
}

// About sets what the Server's lines about a setting begin with: the configuration's
// path, a colon and a space. It has to be called before Serve.
func (s *Server) About(prefix string) { s.registry.about = prefix }

// MaxConnections returns how many connections may be open at once.
func (s *Server) MaxConnections() int { return s.registry.limit }

// Stats returns what the Server counts.
func (s *Server) Stats() stats.Connections { return s.registry.stats() }

// URL returns the address at which a person reaches a path of listener. host is the name
// in the configuration that listener was made for, or empty. The address of a Unix socket
// is what nginx's proxy_pass takes.
func (s *Server) URL(host string, listener net.Listener, path string) string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return scheme + "://unix:" + listener.Addr().String() + ":" + path
	}
	if host == "" && address.IP != nil {
		host = address.IP.String()
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(address.Port)) + path
}

// Serve accepts connections until Stop is called or listener fails, and returns
// the reason. It goes on after an error that passes, such as a lack of descriptors.
func (s *Server) Serve(listener net.Listener) error {
	if !s.registry.listen(listener) {
		return http.ErrServerClosed
	}
	defer s.registry.accepting.Add(-1)
	return s.http.Serve(acceptor{listener, s.tls, &s.registry})
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// serveHTTP hands a request to the handler, unless the registry has closed its
// connection. Such a request is not counted, so the client may repeat it.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	began, last := s.registry.begin(c)
	if !began {
		panic(http.ErrAbortHandler)
	}
	defer s.registry.requests.Done()
	if last {
		w.Header().Set("Connection", "close")
	}
	s.handler.ServeHTTP(w, r)
}

// followState tells the registry about the end of an answer. net/http's other states say
// too little: a connection stays StateIdle while its next header arrives, for example.
func (s *Server) followState(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		s.registry.finish(c.(*conn))
	}
}

// errorLog writes what net/http reports about the server itself to stderr: a line
// each, and at most one a second, since a lack of descriptors may last. It drops what
// net/http reports about clients: they could fill the log at will.
type errorLog struct {
	stderr io.Writer
	last   time.Time // when the last line was written; log.Logger writes one at a time
}

func (l *errorLog) Write(message []byte) (int, error) {
	ours := bytes.HasPrefix(message, []byte("http: Accept")) || bytes.Contains(message, []byte(": panic serving "))
	if ours && time.Since(l.last) > time.Second {
		l.last = time.Now()
		line, _, _ := bytes.Cut(message, []byte("\n"))
		fmt.Fprintf(l.stderr, "pixel-ping: %s\n", line)
	}
	return len(message), nil
}
