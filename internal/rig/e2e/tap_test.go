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
)

// tap stands before a daemon that serves HTTPS, and keeps what clients send it
// over each connection. It passes on the bytes as they are, in the protocol that
// it was told to offer: "http/1.1" or "h2".
type tap struct {
	port     string
	protocol string

	mu    sync.Mutex
	conns []*bytes.Buffer // what clients have sent
}

// newTap returns a tap with a certificate to a port of this machine. It ends
// with the test.
func newTap(t *testing.T, certificate tls.Certificate, protocol, to string) *tap {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{protocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{protocol: protocol}
	_, p.port, _ = net.SplitHostPort(listener.Addr().String())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { p.serve(t, conn, to) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return p
}

// serve passes on a connection until one of its ends, or the test, has ended.
func (p *tap) serve(t *testing.T, client net.Conn, to string) {
	defer client.Close()
	defer context.AfterFunc(t.Context(), func() { client.Close() })()
	sent := new(bytes.Buffer)
	p.mu.Lock()
	p.conns = append(p.conns, sent)
	p.mu.Unlock()
	server, err := tls.Dial("tcp", "127.0.0.1:"+to, &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{p.protocol},
	})
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

// requests returns the requests of each connection that has carried any: a spare
// one that a browser opens is none. Of HTTP/2 their number is all that there is.
func (p *tap) requests() (conns [][]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sent := range p.conns {
		split := requestsOf1
		if p.protocol == "h2" {
			split = requestsOf2
		}
		if requests := split(sent.Bytes()); len(requests) > 0 {
			conns = append(conns, requests)
		}
	}
	return conns
}

// requestsOf1 returns method and target of each request of HTTP/1.1.
func requestsOf1(sent []byte) (requests []string) {
	for reader := bufio.NewReader(bytes.NewReader(sent)); ; {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return requests
		}
		io.Copy(io.Discard, request.Body)
		requests = append(requests, request.Method+" "+request.RequestURI)
	}
}

// requestsOf2 returns a word for each request of HTTP/2: each begins with a frame
// of headers, and no browser sends any behind its body.
func requestsOf2(sent []byte) (requests []string) {
	const preface, head, headers = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 9, 1
	for sent = sent[min(preface, len(sent)):]; len(sent) >= head; {
		length := int(sent[0])<<16 | int(sent[1])<<8 | int(sent[2])
		if sent[3] == headers {
			requests = append(requests, "HEADERS")
		}
		sent = sent[min(head+length, len(sent)):]
	}
	return requests
}
