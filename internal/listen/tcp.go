package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
)

// TCP binds every address of host, so that localhost is found by whichever of
// 127.0.0.1 and ::1 a client tries first; the original binds the first that the
// system names. An empty host is all interfaces. Port 0 takes a free port, the same
// for each address. An address that the machine does not have, such as ::1 where IPv6
// is off, is passed over if there is another. An error is one line that names the
// settings. TCP returns early when ctx ends.
func TCP(ctx context.Context, host string, port int) ([]net.Listener, error) {
	addresses, err := resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	return bind(ctx, host, addresses, port)
}

// bind binds addresses, which are those of host.
func bind(ctx context.Context, host string, addresses []netip.Addr, port int) ([]net.Listener, error) {
	// The server ends dead connections. Keep-alive probes would cost four system calls
	// for each connection.
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
		failure = fmt.Errorf("host, port: cannot listen on %s: %w",
			net.JoinHostPort(host, strconv.Itoa(port)), Explain(err, port))
		errno, _ := errors.AsType[syscall.Errno](err)
		if !slices.Contains(missingAddress, errno) {
			closeAll(listeners)
			return nil, failure
		}
	}
	if listeners == nil {
		return nil, failure
	}
	return listeners, nil
}

// Explain returns what an error of listening on a TCP port says, without the call and
// the address. If the system lets only privileged processes listen on a port below
// 1024, Explain adds what to do.
func Explain(err error, port int) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		err = errno
	} else if dns, ok := errors.AsType[*net.DNSError](err); ok {
		err = errors.New(dns.Err)
	}
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
	if err != nil && host == "localhost" {
		// It is known everywhere (RFC 6761), also without a hosts file, which a new root lacks.
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("host: %q is not known (%w)", host, Explain(err, 0))
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
