package metrics

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"pixel-ping/internal/listen"
)

const (
	// A scrape is one small request; these limits are long for it.
	requestTime = 5 * time.Second
	answerTime  = 10 * time.Second
	// maxScrapes is how many connections are open at once. The server of the pixel
	// leaves 32 file descriptors for everything else; these must fit into them.
	maxScrapes = 8
)

// Server answers scrapes. A nil Server answers none.
type Server struct {
	url  string
	http http.Server
}

// Announce prints where the metrics are. For a Unix socket it prints what nginx's
// proxy_pass takes.
func (s *Server) Announce(w io.Writer) {
	if s != nil {
		fmt.Fprintf(w, "Serving metrics at %s\n", s.url)
	}
}

// Start listens on address, which is host:port or the path of a Unix socket, with a
// slash in it, and answers with handler until Close is called. Of a name with
// several addresses it binds one. If address is empty, the Server is nil. An error
// is one line that names the setting.
func Start(ctx context.Context, address string, handler Handler) (*Server, error) {
	if address == "" {
		return nil, nil
	}
	var listener net.Listener
	var err error
	if strings.Contains(address, "/") {
		listener, err = listen.Unix(address)
	} else if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", address); err != nil {
		port, _ := strconv.Atoi(address[strings.LastIndexByte(address, ':')+1:])
		err = fmt.Errorf("cannot listen on %s: %w", address, listen.Explain(err, port))
	}
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	s := newServer(handler)
	s.url = "http://" + listener.Addr().String() + Path
	if listener.Addr().Network() == "unix" {
		s.url = "http://unix:" + address + ":" + Path
	}
	go s.serve(listener)
	return s, nil
}

func newServer(handler Handler) *Server {
	s := &Server{http: http.Server{
		Handler:      handler,
		ReadTimeout:  requestTime,
		WriteTimeout: answerTime,
		ErrorLog:     log.New(io.Discard, "", 0), // scrapes that fail are seen in Prometheus
	}}
	s.http.SetKeepAlivesEnabled(false)
	return s
}

func (s *Server) serve(listener net.Listener) { s.http.Serve(&bounded{Listener: listener}) }

// Close stops answering.
func (s *Server) Close() {
	if s != nil {
		s.http.Close()
	}
}

// bounded is a listener with a bound on its open connections. When another one comes,
// the oldest is closed: a scrape takes milliseconds, so the oldest is one that sends
// nothing, or reads nothing.
type bounded struct {
	net.Listener
	mu   sync.Mutex
	open []net.Conn // the oldest first
}

func (b *bounded) Accept() (net.Conn, error) {
	conn, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) == maxScrapes {
		b.open[0].Close()
		b.open = slices.Delete(b.open, 0, 1)
	}
	b.open = append(b.open, conn)
	return &counted{conn, b}, nil
}

// counted is a connection of a bounded listener.
type counted struct {
	net.Conn
	of *bounded
}

func (c *counted) Close() error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.of.open = slices.DeleteFunc(c.of.open, func(open net.Conn) bool { return open == c.Conn })
	return c.Conn.Close()
}
