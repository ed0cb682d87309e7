package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// shutListener makes every accept on a port fail: it shuts the socket that listens on
// the port in this process.
func shutListener(t *testing.T, port int) {
	t.Helper()
	for fd := range 1024 {
		address, err := syscall.Getsockname(fd)
		inet, ok := address.(*syscall.SockaddrInet4)
		if err != nil || !ok || inet.Port != port {
			continue
		}
		if listens, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); listens == 1 {
			if err := syscall.Shutdown(fd, syscall.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("nobody listens on port %d", port)
}

// A daemon that can accept no connections any more says why and ends, with or without
// hits that it cannot deliver.
func TestListenerThatFails(t *testing.T) {
	for last, queries := range map[string][]string{
		"pixel-ping: stopped, since it cannot accept connections\n":        nil,
		"pixel-ping: 1 hit of 1 key was not delivered; the log has them\n": {"key=a"},
	} {
		stdout, stderr := rig.NewOutput(), rig.NewOutput()
		status := make(chan int, 1)
		config := settings(t, map[string]any{"endpoint": "http://127.0.0.1:1"})
		go func() { status <- run(t.Context(), []string{config}, stdout, stderr) }()
		d := &process{url: strings.TrimPrefix(stdout.WaitLine(t, 0, "Serving"), "Serving the pixel at ")}
		d.hit(t, queries...)
		_, port, _ := strings.Cut(d.address(), ":")
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		shutListener(t, number)
		if got := <-status; got != 1 {
			t.Errorf("exit status %d, want 1", got)
		}
		reason := "pixel-ping: cannot accept connections: accept tcp4 " + d.address() + ": "
		if got := stderr.String(); !strings.HasPrefix(got, reason) || !strings.HasSuffix(got, last) {
			t.Errorf("it says:\n%s\nwant a line that begins with %q, and then %q", got, reason, last)
		}
	}
}
