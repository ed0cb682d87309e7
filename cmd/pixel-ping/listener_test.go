package main

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener for the other ends of pipes.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return &piped{Conn: conn}, nil
}

func (p pipes) Close() error { return nil }

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// cutAll ends what waits for the other end, at once, and what comes later.
func TestCutAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, open := make(pipes, 2), new(connections)
		for range 2 {
			here, there := net.Pipe()
			defer here.Close()
			p <- there
		}
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
