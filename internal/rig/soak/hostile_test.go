//go:build unix

package soak

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"pixel-ping/internal/rig"
)

// flooding is a kind of hostile clients.
type flooding struct {
	name string
	open func(address string) (net.Conn, error) // opens a connection and brings it into its state
	drip bool                                   // a byte follows each second
	few  bool                                   // each connection is costly, so there are few
}

// floodings are the kinds of hostile clients that TestFloods knows. None of them makes
// a hit that counts.
var floodings = []flooding{
	{name: "silent", open: rig.Dial},
	{name: "stuck in the TLS handshake", open: func(address string) (net.Conn, error) {
		return dialAndWrite(address, clientHello())
	}},
	{name: "dripping a header", drip: true, open: func(address string) (net.Conn, error) {
		conn, err := dialTLS(address, "http/1.1")
		if err == nil {
			io.WriteString(conn, "GET /pixel.gif?key="+strings.Repeat("x", 14_700)+" HTTP/1.1\r\nHost: x\r\nX: ")
		}
		return conn, err
	}},
	{name: "HTTP/2 headers without an end", open: func(address string) (net.Conn, error) {
		return dialHTTP2(address, appendFrame(appendWindow(nil, 1<<16-1),
			frameHeaders, flagEndStream, 1, appendRequest(nil, "/pixel.gif?key="+strings.Repeat("x", 15_000), 0)))
	}},
	{name: "HTTP/2 streams without an end", open: func(address string) (net.Conn, error) {
		return dialHTTP2(address, appendStreams(1<<16-1, flagEndHeaders, "/", 32, 0))
	}},
	{name: "HTTP/2 answers that are not read", open: func(address string) (net.Conn, error) {
		return dialHTTP2(address, appendStreams(0, flagEndHeaders|flagEndStream, "/pixel.gif", 32, 0))
	}},
	{name: "few HTTP/2 connections that ask for much", few: true, open: func(address string) (net.Conn, error) {
		return dialHTTP2(address, appendStreams(0, flagEndHeaders|flagEndStream, "/pixel.gif", 240, 440))
	}},
}

// appendStreams returns a SETTINGS frame with the window of streams, and frames that
// open streams.
func appendStreams(window uint32, flags byte, path string, streams, fields int) []byte {
	frames, request := appendWindow(nil, window), appendRequest(nil, path, fields)
	for i := range streams {
		frames = appendFrame(frames, frameHeaders, flags, uint32(2*i+1), request)
	}
	return frames
}

// dialAndWrite connects and writes.
func dialAndWrite(address string, bytes []byte) (net.Conn, error) {
	conn, err := rig.Dial(address)
	if err == nil {
		_, err = conn.Write(bytes)
	}
	return conn, err
}

// clientHello returns the first message of a TLS handshake.
var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	defer client.Close()
	go tls.Client(client, &tls.Config{InsecureSkipVerify: true}).Handshake()
	hello := make([]byte, 16<<10)
	n, err := server.Read(hello)
	if err != nil {
		panic(err)
	}
	server.Close()
	return hello[:n]
})

// flood keeps hostile connections open, and renews them.
type flood struct {
	flooding
	address     string
	connections int // how many are held; the oldest is closed when there are more
	rate        int // how many are opened a second, at most

	mu     sync.Mutex
	held   []net.Conn // the oldest first
	opened int
}

// run floods until done is closed, and then closes the connections.
func (f *flood) run(done <-chan struct{}) {
	permits := make(chan struct{})
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for range permits {
				f.renew()
			}
		})
	}
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	drips := time.NewTicker(time.Second)
	defer drips.Stop()
	began, permitted := time.Now(), 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-drips.C:
			if f.drip {
				workers.Go(f.dripAll)
			}
		case <-ticks.C:
			due := int(time.Since(began).Seconds() * float64(f.rate))
			for ; permitted < due; permitted++ {
				select {
				case permits <- struct{}{}:
				default: // all workers are busy; they do not make up for it later
				}
			}
		}
	}
	close(permits)
	workers.Wait()
	for _, conn := range f.held {
		abort(conn)
	}
}

// renew opens a connection, and closes the oldest one if there are too many. A server
// that is full or stops may refuse the connection or close it at once.
func (f *flood) renew() {
	conn, err := f.open(f.address)
	f.mu.Lock()
	f.opened++
	var oldest net.Conn
	if err == nil {
		f.held = append(f.held, conn)
		if len(f.held) > f.connections {
			oldest, f.held = f.held[0], f.held[1:]
		}
	}
	f.mu.Unlock()
	if oldest != nil {
		abort(oldest)
	}
}

// dripAll sends a byte on each connection.
func (f *flood) dripAll() {
	f.mu.Lock()
	held := append([]net.Conn(nil), f.held...)
	f.mu.Unlock()
	for _, conn := range held {
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		conn.Write([]byte("x"))
	}
}

// abort closes a connection without TLS's farewell, for which a client that floods
// would not wait.
func abort(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	conn.Close()
}
