package main

import (
	"context"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// A daemon that cannot accept connections any more stops. It says why, and what was
// not delivered.
func TestListenerThatFails(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	stdout, stderr := rig.NewOutput(), rig.NewOutput()
	status := make(chan int, 1)
	config := settings(t, map[string]any{"endpoint": nobody})
	go func() { status <- run(context.Background(), []string{config}, stdout, stderr) }()
	d := &process{url: strings.TrimPrefix(stdout.WaitLine(t, 0, "Serving"), "Serving the pixel at ")}
	d.hit(t, "key=a")
	port, err := strconv.Atoi(strings.TrimPrefix(d.address(), "127.0.0.1:"))
	if err != nil {
		t.Fatal(err)
	}
	for fd := range 1000 {
		address, _ := syscall.Getsockname(fd)
		listening, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		if a, ok := address.(*syscall.SockaddrInet4); ok && a.Port == port && listening == 1 {
			if err := syscall.Shutdown(fd, syscall.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := <-status; got != 1 {
		t.Errorf("exit status %d, want 1", got)
	}
	stderr.WaitLine(t, 0, "pixel-ping: 1 hit of 1 key was not delivered; the log has them")
	stderr.WaitLine(t, 0, "pixel-ping: accept tcp4 127.0.0.1:"+strconv.Itoa(port))
}
