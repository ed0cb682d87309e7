// Package listen finds what the daemon listens on: the sockets that systemd listens on
// for it, a Unix socket, or the addresses of a host.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// ErrNoPort says that there is nothing to listen on.
var ErrNoPort = errors.New("port: missing; want a number from 0 to 65535, or the path of a socket, with a slash")

// Find listens, and returns at least one listener: the sockets that this process
// inherits if there are any, or else the Unix socket at path unless it is empty, or else
// host and port, see TCP. A port below 0 is none. Find reports whether the listeners are
// inherited. It takes the variables about inherited sockets out of the environment, so it
// may be called once. It returns early when ctx ends. An error is one line that names the
// settings; after it, nothing is left bound.
func Find(ctx context.Context, host string, port int, path string) ([]net.Listener, bool, error) {
	listeners, err := inherited()
	switch {
	case listeners != nil || err != nil:
		return listeners, true, err
	case path != "":
		listener, err := Unix(path)
		if err != nil {
			return nil, false, fmt.Errorf("port: %w", err)
		}
		return []net.Listener{listener}, false, nil
	case port < 0:
		return nil, false, ErrNoPort
	}
	listeners, err = TCP(ctx, host, port)
	return listeners, false, err
}

func closeAll(listeners []net.Listener) {
	for _, listener := range listeners {
		listener.Close()
	}
}
