package rig

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Endpoint is an application that keeps the bytes of each request and answers
// as it is told to. One connection is read at a time for each goroutine, and
// closed after its answer.
type Endpoint struct {
	Address  string      // host:port
	Requests chan string // head and body of each request, as they came

	mu       sync.Mutex
	listener net.Listener
	answer   func(net.Conn)
}

// Answer returns an answer that is these bytes.
func Answer(text string) func(net.Conn) {
	return func(conn net.Conn) { io.WriteString(conn, text) }
}

// Reset is an answer that resets the connection.
func Reset(conn net.Conn) {
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// NewEndpoint returns an endpoint that answers each request with 204.
func NewEndpoint(t testing.TB) *Endpoint {
	e := &Endpoint{Address: "127.0.0.1:0", Requests: make(chan string, 10000)}
	e.SetAnswer(Answer("HTTP/1.1 204 No Content\r\n\r\n"))
	e.Open(t)
	t.Cleanup(e.Close)
	return e
}

// SetAnswer has the requests that come from now on answered by answer.
func (e *Endpoint) SetAnswer(answer func(net.Conn)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = answer
}

// Open listens on Address, and is needed after a Close only.
func (e *Endpoint) Open(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", e.Address)
	if err != nil {
		t.Fatal(err)
	}
	e.listener, e.Address = listener, listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go e.serve(conn)
		}
	}()
}

// Close has connections refused from now on.
func (e *Endpoint) Close() { e.listener.Close() }

func (e *Endpoint) serve(conn net.Conn) {
	defer conn.Close()
	request, err := readRequest(conn)
	if err != nil {
		return
	}
	e.Requests <- request
	e.mu.Lock()
	answer := e.answer
	e.mu.Unlock()
	answer(conn)
}

// readRequest reads a request with a Content-Length, whatever its target is:
// net/http would refuse what the original may post to.
func readRequest(conn net.Conn) (string, error) {
	var all strings.Builder
	r := textproto.NewReader(bufio.NewReader(io.TeeReader(conn, &all)))
	if _, err := r.ReadLine(); err != nil {
		return "", err
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		return "", err
	}
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(io.Discard, r.R, length)
	return all.String(), err
}

// Next waits for the next request.
func (e *Endpoint) Next(t testing.TB) string {
	t.Helper()
	request, err := e.next(Deadline)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// Body waits for the next request and returns its body.
func (e *Endpoint) Body(t testing.TB) string {
	t.Helper()
	_, body, _ := strings.Cut(e.Next(t), "\r\n\r\n")
	return body
}

func (e *Endpoint) next(within time.Duration) (string, error) {
	select {
	case request := <-e.Requests:
		return request, nil
	case <-time.After(within):
		return "", errors.New("the endpoint receives nothing")
	}
}
