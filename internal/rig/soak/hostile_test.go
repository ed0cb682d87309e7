//go:build unix

package soak

import (
	"crypto/tls"
	"fmt"
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
}

// floodings are the kinds of hostile clients that TestFloods knows. None of them makes
// a hit that counts.
var floodings = []flooding{
	{name: "silent", open: rig.Dial},
	{name: "stuck in the TLS handshake", open: func(address string) (net.Conn, error) {
		return dialAndWrite(address, clientHello())
	}},
	{name: "dripping a TLS handshake", drip: true, open: func(address string) (net.Conn, error) {
		const record = "\x16\x03\x01\x40\x00" // of 16 kB
		hello := "\x01\x00\xff\xff" + strings.Repeat("x", 16<<10)
		return dialAndWrite(address, []byte(record+hello[:16<<10]+record+hello[:6<<10]))
	}},
	{name: "dripping a header", drip: true, open: func(address string) (net.Conn, error) {
		return dialTLS(address, "GET /pixel.gif?key="+strings.Repeat("x", 14_700)+" HTTP/1.1\r\nHost: x\r\nX: ")
	}},
	{name: "dripping a record after many headers", open: func(address string) (net.Conn, error) {
		conn, err := dialTLS(address, "GET /pixel.gif?key=x HTTP/1.1\r\nHost: x\r\n"+manyHeaders())
		if err == nil {
			io.WriteString(conn.(*tls.Conn).NetConn(), "\x17\x03\x03\x41\x00"+strings.Repeat("x", 16<<10))
		}
		return conn, err
	}},
}

// manyHeaders returns as many headers as a request may have, just below the limit of
// their bytes.
var manyHeaders = sync.OnceValue(func() string {
	var headers strings.Builder
	for i := range 98 {
		fmt.Fprintf(&headers, "X%d: %.180d\r\n", i, i)
	}
	return headers.String()
})

// dialTLS connects to a daemon, shakes hands and sends bytes.
func dialTLS(address, bytes string) (net.Conn, error) {
	conn, err := rig.Dial(address)
	if err != nil {
		return nil, err
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	client.SetDeadline(time.Now().Add(rig.Deadline))
	if _, err := io.WriteString(client, bytes); err != nil {
		conn.Close()
		return nil, err
	}
	return client, nil
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
