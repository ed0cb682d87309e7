package rig

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Endpoint is an application that keeps the bytes of each request and answers as
// the test says. Each connection carries one request and is closed after the
// answer. Several connections are served at once.
type Endpoint struct {
	Address  string      // host:port on which it listens
	Requests chan string // head and body of each request, in the order of arrival

	mu       sync.Mutex
	listener net.Listener
	answer   func(net.Conn)
}

// Answer returns an answer that consists of these bytes.
func Answer(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// Reset is an answer that resets the connection.
func Reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// NewEndpoint returns an endpoint that answers each request with status 204.
func NewEndpoint(t testing.TB) *Endpoint {
	t.Helper()
	e := &Endpoint{Address: "127.0.0.1:0", Requests: make(chan string, 10000)}
	e.SetAnswer(Answer("HTTP/1.1 204 No Content\r\n\r\n"))
	e.Open(t)
	t.Cleanup(e.Close)
	return e
}

// SetAnswer sets the answer to the requests that arrive from now on.
func (e *Endpoint) SetAnswer(answer func(net.Conn)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = answer
}

// Open makes a closed endpoint listen on its Address again.
func (e *Endpoint) Open(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", e.Address)
	if err != nil {
		t.Fatal(err)
	}
	e.listener, e.Address = listener, listener.Addr().String()
	go Accept(listener, e.serve)
}

// Close stops listening: further connections are refused.
func (e *Endpoint) Close() { e.listener.Close() }

func (e *Endpoint) serve(conn net.Conn) {
	request, err := ReadRequest(conn)
	if err != nil {
		return
	}
	e.Requests <- request
	e.mu.Lock()
	answer := e.answer
	e.mu.Unlock()
	answer(conn)
}

// Next waits for the next request and returns it.
func (e *Endpoint) Next(t testing.TB) string {
	t.Helper()
	select {
	case request := <-e.Requests:
		return request
	case <-time.After(Deadline):
		t.Fatal("the endpoint receives no request")
	}
	return ""
}

// Body waits for the next request and returns its body.
func (e *Endpoint) Body(t testing.TB) string {
	t.Helper()
	_, body, _ := strings.Cut(e.Next(t), "\r\n\r\n")
	return body
}

// Accept calls serve for each connection, in a goroutine of its own, and closes
// the connection afterwards. Accept returns when the listener is closed and all
// connections have been served.
func Accept(listener net.Listener, serve func(net.Conn)) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer conn.Close()
			serve(conn)
		})
	}
}

// Listen serves the connections to a free port of 127.0.0.1 with Accept until
// the test ends. It returns the address.
func Listen(t testing.TB, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go Accept(listener, serve)
	return listener.Addr().String()
}
