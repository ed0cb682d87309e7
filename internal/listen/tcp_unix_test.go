//go:build unix

package listen

import (
	"net"
	"syscall"
	"testing"
)

// The system sends no probes over connections that idle.
func TestConnectionsAreNotProbed(t *testing.T) {
	listeners, err := TCP(t.Context(), "127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer listeners[0].Close()
	client, err := net.Dial("tcp", listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if on, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE); on != 0 || err != nil {
			t.Errorf("probes are %d, %v, want none", on, err)
		}
	})
}
