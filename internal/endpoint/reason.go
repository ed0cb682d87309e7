package endpoint

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// reason words an error as Node does where it has a name of its own for it, so
// that whoever searches the log for ECONNREFUSED goes on finding it.
func reason(err error) string {
	var address string
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		address = op.Addr.String()
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS && dns.IsNotFound:
		return "getaddrinfo ENOTFOUND " + dns.Name
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect ECONNREFUSED " + address
	case errors.Is(err, syscall.ECONNRESET):
		return "read ECONNRESET"
	case errors.Is(err, io.EOF):
		return "socket hang up"
	}
	return err.Error()
}
