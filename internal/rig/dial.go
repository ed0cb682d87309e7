package rig

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"
)

// dialed counts the calls of Dial.
var dialed atomic.Uint32

// Dial connects to an address of this machine. Each connection comes from another
// address of 127.1.0.0/16: one address has some 28,000 ports, and Linux keeps a port
// for a minute after its connection has ended. Dial may be called by many goroutines
// at once.
func Dial(address string) (net.Conn, error) {
	i := dialed.Add(1)
	dialer := net.Dialer{
		Timeout:   Deadline,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))},
	}
	return dialer.Dial("tcp", address)
}

// Pipes returns a function that dials nobody: each connection is a pipe whose other end
// script handles and then closes. It can be used in a bubble. The test ends when all
// scripts have.
func Pipes(t testing.TB, script func(net.Conn)) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		ours, theirs := net.Pipe()
		ended := make(chan struct{})
		t.Cleanup(func() { <-ended })
		go func() {
			defer close(ended)
			defer theirs.Close()
			script(theirs)
		}()
		return ours, nil
	}
}

// HasIPv6 reports whether this machine has the address ::1. Many containers do not. In
// CI it has to be there.
func HasIPv6(t testing.TB) bool {
	t.Helper()
	listener, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		listener.Close()
	} else if os.Getenv("CI") != "" {
		t.Fatalf("the tests need IPv6 in CI: %v", err)
	} else {
		t.Logf("not tested over IPv6: %v", err)
	}
	return err == nil
}
