package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"

	"pixel-ping/internal/socket"
)

// Listen binds every address of host, so that localhost is found by whichever
// of 127.0.0.1 and ::1 a client tries first; the original binds the first that
// the system names. An empty host is all interfaces. Port 0 takes a free port,
// the same for each address. An address that the machine does not have, such as
// ::1 where IPv6 is off, is passed over if there is another. An error is one
// line that names the settings. Listen returns early when ctx ends.
func Listen(ctx context.Context, host string, port int) ([]net.Listener, error) {
	addresses, err := resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	return bind(ctx, host, addresses, port)
}

// bind binds addresses, which are those of host.
func bind(ctx context.Context, host string, addresses []netip.Addr, port int) ([]net.Listener, error) {
	// The registry's sweep ends dead connections. Keep-alive probes would cost four
	// system calls for each connection.
	withoutProbes := net.ListenConfig{KeepAlive: -1}
	var listeners []net.Listener
	var failure error
	for _, address := range addresses {
		network := "tcp"
		if address.Is4() {
			network = "tcp4" // "tcp" would bind 0.0.0.0 for IPv6 as well
		}
		listener, err := withoutProbes.Listen(ctx, network, netip.AddrPortFrom(address, uint16(port)).String())
		if err == nil {
			listeners = append(listeners, listener)
			port = listener.Addr().(*net.TCPAddr).Port
			continue
		}
		errno, ok := errors.AsType[syscall.Errno](err)
		if ok {
			err = errno // without the call and the address
		}
		failure = fmt.Errorf("host, port: cannot listen on %s: %w",
			net.JoinHostPort(host, strconv.Itoa(port)), explainPort(err, port))
		if !slices.Contains(missingAddress, errno) {
			for _, listener := range listeners {
				listener.Close()
			}
			return nil, failure
		}
	}
	if listeners == nil {
		return nil, failure
	}
	return listeners, nil
}

// ListenSocket listens on the Unix socket at path, as socket.Listen does. An error
// is one line that names the setting.
func ListenSocket(path string) ([]net.Listener, error) {
	listener, err := socket.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("port: %w", err)
	}
	return []net.Listener{listener}, nil
}

// explainPort says what to do if the system lets only privileged processes listen
// on a port below 1024.
func explainPort(err error, port int) error {
	if errors.Is(err, syscall.EACCES) && 0 < port && port < 1024 {
		return fmt.Errorf("%w; ports below 1024 need a privilege: start it with the systemd unit, "+
			"run setcap cap_net_bind_service=+ep on the program, or use a higher port behind a front end", err)
	}
	return err
}

// missingAddress has the errors for an address that the machine does not have. The
// numbers are Windows's WSAEADDRNOTAVAIL and WSAEAFNOSUPPORT.
var missingAddress = []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, 10049, 10047}

// resolve returns the addresses of host, each once.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if host == "" {
		return []netip.Addr{netip.IPv6Unspecified()}, nil // the system lets it accept IPv4, too
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		reason := err.Error()
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			reason = dns.Err
		}
		return nil, fmt.Errorf("host: %q is not known (%s)", host, reason)
	}
	return distinct(found), nil
}

// distinct drops duplicates. A wildcard address replaces all others.
func distinct(found []netip.Addr) []netip.Addr {
	var addresses []netip.Addr
	for _, address := range found {
		address = address.Unmap()
		if address.IsUnspecified() {
			return []netip.Addr{address}
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}
