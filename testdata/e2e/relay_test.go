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

// relay stands before a daemon that serves HTTPS, and keeps what clients send it
// over each connection. It passes on the bytes as they are, in the protocol that
// it was told to offer: "http/1.1" or "h2".
type relay struct {
	port     string
	protocol string

	mu    sync.Mutex
	conns []*bytes.Buffer // what clients have sent
}

// newRelay returns a relay with a certificate to a port of this machine. It ends
// with the test.
func newRelay(t *testing.T, certificate tls.Certificate, protocol, to string) *relay {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate},
		NextProtos:   []string{protocol},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{protocol: protocol}
	_, r.port, _ = net.SplitHostPort(listener.Addr().String())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { r.serve(t, conn, to) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		conns.Wait()
	})
	return r
}

// serve passes on a connection until one of its ends, or the test, has ended.
func (r *relay) serve(t *testing.T, client net.Conn, to string) {
	defer client.Close()
	defer context.AfterFunc(t.Context(), func() { client.Close() })()
	sent := new(bytes.Buffer)
	r.mu.Lock()
	r.conns = append(r.conns, sent)
	r.mu.Unlock()
	daemon, err := tls.Dial("tcp", "127.0.0.1:"+to, &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{r.protocol},
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer daemon.Close()
	go func() {
		defer client.Close()
		io.Copy(client, daemon)
	}()
	for buffer := make([]byte, 32<<10); ; {
		n, err := client.Read(buffer)
		r.mu.Lock()
		sent.Write(buffer[:n])
		r.mu.Unlock()
		if _, writing := daemon.Write(buffer[:n]); err != nil || writing != nil {
			return
		}
	}
}

// requests returns the requests of each connection that has carried any: a spare
// one that a browser opens is none. Of HTTP/2 their number is all that there is.
func (r *relay) requests(t *testing.T) (conns [][]string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sent := range r.conns {
		split := requestsOf1
		if r.protocol == "h2" {
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
