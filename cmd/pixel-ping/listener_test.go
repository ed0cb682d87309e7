package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/rig"
)

// pipes is a listener for the other ends of pipes.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() pipes { return pipes{make(chan net.Conn, 10), make(chan struct{})} }

// dial returns an end of a pipe whose other end is accepted.
func (p pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return &piped{Conn: conn}, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.closed)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// cutAll ends what waits for the other end, at once, and what comes later.
func TestCutAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := newPipes(), new(connections)
		defer p.dial().Close()
		defer p.dial().Close()
		waiting, err := listener{p, open}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, open.cutAll)
		began := time.Now()
		if _, err := waiting.Write([]byte("data")); err == nil || time.Since(began) != time.Second {
			t.Errorf("the write ends with %v after %v", err, time.Since(began))
		}
		waiting.Close()
		late, err := listener{p, open}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := late.Write([]byte("data")); err == nil || time.Since(began) != time.Second {
			t.Errorf("the write on a late connection ends with %v after %v", err, time.Since(began))
		}
		late.Close()
		if len(open.all) != 0 {
			t.Errorf("%d closed connections are kept", len(open.all))
		}
	})
}

// Clients that do not read TLS's farewell, for which it waits 5 seconds each, do
// not keep a stop from its last flush.
func TestShutIsNotHeldUp(t *testing.T) {
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		p, open := newPipes(), new(connections)
		server := newServer(pixel.Handler{Hits: hits.NewStore(1 << 20)}, nil, io.Discard)
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		go serve(server, p, open)
		for range 4 {
			conn := p.dial()
			defer conn.Close()
			client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			io.WriteString(client, "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\n\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, answer.Body)
		}
		synctest.Wait()
		began := time.Now()
		shut(t.Context(), server, open)
		if took := time.Since(began); took > quietTime {
			t.Errorf("it took %v", took)
		}
	})
}
