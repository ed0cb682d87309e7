//go:build unix

package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
)

// firstSocket is the number of the first file descriptor that is passed on
// (SD_LISTEN_FDS_START).
const firstSocket = 3

// inherited returns the sockets that systemd has passed on to this process, and nil if
// there are none. It takes LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES out of the
// environment, so that they are not meant for children, and its descriptors are
// closed in children. It may be called once.
//
// To close one of the listeners ends the accepting here. systemd keeps the socket
// open: connections that nobody has accepted wait for the next process. The system
// sends keep-alive probes over their connections, since package net offers no way to
// have FileListener do without. An error is one line.
func inherited() (listeners []net.Listener, err error) {
	process, sockets := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if process != strconv.Itoa(os.Getpid()) {
		return nil, nil // none, or for another process
	}
	n, err := strconv.Atoi(sockets)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("LISTEN_FDS: want the number of inherited sockets (got %q)", sockets)
	}
	for i := range n {
		listener, err := inherit(firstSocket + i)
		if err != nil {
			closeAll(listeners)
			return nil, fmt.Errorf("inherited socket %d of %d (LISTEN_FDS) %w", i+1, n, err)
		}
		listeners = append(listeners, listener)
	}
	return listeners, nil
}

// inherit returns the listener of a descriptor. The copy that FileListener makes is
// closed in children; the original is closed here.
func inherit(fd int) (net.Listener, error) {
	file := os.NewFile(uintptr(fd), "inherited socket")
	defer file.Close()
	listening, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	if err != nil || listening == 0 {
		return nil, errors.New("does not listen; the socket unit needs ListenStream=, and Accept=no")
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("cannot be used: %w", err)
	}
	return listener, nil
}
