package post

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// reason returns the text of an error. Where Node has a name for the error, the
// text is Node's, so that a search of the log for ECONNREFUSED still finds it.
func reason(err error) string {
	var address string
	op, isOp := errors.AsType[*net.OpError](err)
	if isOp && op.Addr != nil {
		address = op.Addr.String()
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case isDNS && dns.IsNotFound:
		return "getaddrinfo ENOTFOUND " + dns.Name
	case isDNS:
		return "getaddrinfo EAI_AGAIN " + dns.Name + ": " + dns.Err
	case isOp && op.Op == "dial" && op.Timeout():
		return "connect ETIMEDOUT " + address
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect ECONNREFUSED " + address
	case errors.Is(err, syscall.ECONNRESET):
		return "read ECONNRESET"
	case errors.Is(err, io.EOF):
		return "socket hang up"
	}
	return err.Error()
}
