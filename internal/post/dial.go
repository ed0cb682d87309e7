package post

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"time"
)

const (
	// connectTimeout is for one connection, and again for its TLS handshake. It lets the
	// system send its SYN again three times.
	connectTimeout = 10 * time.Second
	// attemptDelay is how long the attempt to one address keeps back the next one (RFC 8305).
	attemptDelay = 250 * time.Millisecond
)

// dial looks up a name and connects, as net.Dialer's DialContext does. The look-up may
// take until ctx ends, and each connection connectTimeout: with a dead name server,
// each search domain costs 5 seconds. For net.Dialer, both are one time, which several
// addresses share; some dead ones use it up.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	one := net.Dialer{Timeout: connectTimeout}
	if network == "unix" {
		return one.DialContext(ctx, network, address)
	}
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, name)
	if err != nil && name == "localhost" { // which is known everywhere (RFC 6761), also without a hosts file
		found, err = []net.IPAddr{{IP: net.IPv4(127, 0, 0, 1)}, {IP: net.IPv6loopback}}, nil
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("getaddrinfo EAI_AGAIN %s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return nil, err
	}
	return race(ctx, found, func(ctx context.Context, ip net.IPAddr) (net.Conn, error) {
		return one.DialContext(ctx, network, net.JoinHostPort(ip.String(), port))
	})
}

// race connects to the addresses in turn, and returns the first connection. An attempt
// begins when the one before has failed, or else after attemptDelay for each address
// before its own. If all fail, the error is that of the first to fail.
func race(
	ctx context.Context, addresses []net.IPAddr, connect func(context.Context, net.IPAddr) (net.Conn, error),
) (conn net.Conn, err error) {
	type attempt struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan attempt)
	var failed chan struct{} // closed when the attempt before has failed
	for i, ip := range addresses {
		before, fail := failed, make(chan struct{})
		go func() {
			select {
			case <-before:
			case <-time.After(time.Duration(i) * attemptDelay):
			case <-ctx.Done():
			}
			conn, err := connect(ctx, ip)
			if err != nil {
				close(fail)
			}
			select {
			case ended <- attempt{conn, err}:
			case <-ctx.Done():
				if err == nil {
					conn.Close()
				}
			}
		}()
		failed = fail
	}
	for range addresses {
		select {
		case this := <-ended:
			if this.err == nil {
				return this.conn, nil
			}
			err = cmp.Or(err, this.err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return nil, err
}
