package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestAddressesAreBoundOnce(t *testing.T) {
	for names, want := range map[string]string{
		"127.0.0.1 ::1":                        "[127.0.0.1 ::1]",
		"127.0.0.1 127.0.0.1 ::ffff:127.0.0.1": "[127.0.0.1]",
		"127.0.0.1 0.0.0.0":                    "[0.0.0.0]",
		"::":                                   "[::]",
	} {
		var found []netip.Addr
		for name := range strings.FieldsSeq(names) {
			found = append(found, netip.MustParseAddr(name))
		}
		if got := fmt.Sprint(distinct(found)); got != want {
			t.Errorf("%s: %s is bound, want %s", names, got, want)
		}
	}
}

func TestFamilies(t *testing.T) {
	for host, want := range map[string]string{
		"0.0.0.0": "0.0.0.0:", "127.0.0.1": "127.0.0.1:", "": "[::]:", "::": "[::]:",
	} {
		listeners, err := TCP(t.Context(), host, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := listeners[0].Addr().String(); len(listeners) != 1 || !strings.HasPrefix(got, want) {
			t.Errorf("host %q: %d listeners, the first on %s, want %s", host, len(listeners), got, want)
		}
		listeners[0].Close()
	}
}

// Several addresses have the same port. One that the machine does not have is passed
// over, unless there is no other. Any other failure closes what was bound.
func TestBind(t *testing.T) {
	here, missing := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")
	bound := func(port int, addresses ...netip.Addr) (listeners []net.Listener, err error) {
		listeners, err = bind(t.Context(), "name", addresses, port)
		for _, listener := range listeners {
			t.Cleanup(func() { listener.Close() })
		}
		return listeners, err
	}
	first, err := bound(0, missing, here)
	if err != nil || len(first) != 1 {
		t.Fatalf("%d listeners, error %v, want one", len(first), err)
	}
	if _, err := bound(0, missing); err == nil {
		t.Error("no error, though the only address is missing")
	}
	taken := first[0].Addr().(*net.TCPAddr).Port
	if _, err := bound(taken, netip.MustParseAddr("::1"), here); err == nil {
		t.Error("no error, though the port of an address is taken")
	}
	if conn, err := net.Dial("tcp", net.JoinHostPort("::1", strconv.Itoa(taken))); err == nil {
		conn.Close()
		t.Error("an address is still bound after an error")
	}
	both, err := bound(0, here, netip.MustParseAddr("::1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, listener := range both {
		if got, want := listener.Addr().(*net.TCPAddr).Port, both[0].Addr().(*net.TCPAddr).Port; got != want {
			t.Errorf("the ports are %d and %d", want, got)
		}
	}
}

// The end of the context ends the search for a name, however long name servers
// take: a stop during a start waits for none of them.
func TestTCPEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := TCP(ctx, "pixels.example.com", 0)
	if err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("error %v, want that of the context", err)
	}
}

// The error of a privileged port says what to do.
func TestPortBelow1024(t *testing.T) {
	denied := fmt.Errorf("listen tcp :80: %w", syscall.EACCES)
	const want = "permission denied; ports below 1024 need a privilege: " +
		"start it with the systemd unit, run setcap cap_net_bind_service=+ep on the program, " +
		"or use a higher port behind a front end"
	if got := Explain(denied, 80); got.Error() != want || !errors.Is(got, syscall.EACCES) {
		t.Errorf("says %q, want %q", got, want)
	}
	taken := fmt.Errorf("listen tcp :80: %w", syscall.EADDRINUSE)
	for err, port := range map[error]int{denied: 1024, taken: 80} {
		if got := Explain(err, port); got != errors.Unwrap(err) {
			t.Errorf("says %q, want %q", got, errors.Unwrap(err))
		}
	}
}
