//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"pixel-ping/internal/rig"
)

// tap is a proxy in front of a daemon that serves HTTPS. It keeps the bytes that
// clients send on each connection, and passes them on unchanged.
type tap struct {
	port string

	mu    sync.Mutex
	conns []*bytes.Buffer // the bytes that the client of each connection sent
}

// newTap starts a tap that has a certificate and passes connections to an address.
// The tap ends when the test ends.
func newTap(t *testing.T, certificate tls.Certificate, to string) *tap {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{"http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := new(tap)
	_, p.port, _ = net.SplitHostPort(listener.Addr().String())
	var conns sync.WaitGroup
	conns.Go(func() { rig.Accept(listener, func(conn net.Conn) { p.serve(t, conn, to) }) })
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return p
}

// serve passes on the bytes of a connection until an end of it is closed or the test
// ends.
func (p *tap) serve(t *testing.T, client net.Conn, to string) {
	defer context.AfterFunc(t.Context(), func() { client.Close() })()
	sent := new(bytes.Buffer)
	p.mu.Lock()
	p.conns = append(p.conns, sent)
	p.mu.Unlock()
	server, err := tls.Dial("tcp", to, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	go func() {
		defer client.Close()
		io.Copy(client, server)
	}()
	for buffer := make([]byte, 32<<10); ; {
		n, err := client.Read(buffer)
		p.mu.Lock()
		sent.Write(buffer[:n])
		p.mu.Unlock()
		if _, writing := server.Write(buffer[:n]); err != nil || writing != nil {
			return
		}
	}
}

// requests returns the method and target of the requests of each connection that has
// carried any. Browsers also open connections that they do not use.
func (p *tap) requests() (conns [][]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sent := range p.conns {
		var requests []string
		for reader := bufio.NewReader(bytes.NewReader(sent.Bytes())); ; {
			request, err := http.ReadRequest(reader)
			if err != nil {
				break
			}
			io.Copy(io.Discard, request.Body)
			requests = append(requests, request.Method+" "+request.RequestURI)
		}
		if len(requests) > 0 {
			conns = append(conns, requests)
		}
	}
	return conns
}
