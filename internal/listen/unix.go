package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// dialTimeout is how long Unix waits for a sign of another server. A server that runs
// accepts a connection at once, even when it is busy: the system does so for it.
const dialTimeout = time.Second

// Unix listens on a Unix socket at path. The mode of the socket is 0666, as
// nginx has it: its folder decides who may connect. A socket on which nobody
// listens, as a crash leaves it behind, is replaced. The file is removed when the
// listener is closed. An error is one line.
func Unix(path string) (net.Listener, error) {
	listener, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && isAbandoned(path) {
		if err = os.Remove(path); err == nil {
			listener, err = net.Listen("unix", path)
		}
	}
	if err == nil {
		if err = os.Chmod(path, 0o666); err == nil {
			return listener, nil
		}
		listener.Close()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno // without the call and the path
	}
	return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
}

// isAbandoned reports whether path is a socket that refuses connections.
func isAbandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	conn, err := net.DialTimeout("unix", path, dialTimeout)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
