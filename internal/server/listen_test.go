package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
		listeners, err := Listen(t.Context(), host, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := listeners[0].Addr().String(); len(listeners) != 1 || !strings.HasPrefix(got, want) {
			t.Errorf("host %q: %d listeners, the first on %s, want %s", host, len(listeners), got, want)
		}
		listeners[0].Close()
	}
}

// The end of the context ends the search for a name, however long name servers
// take: a stop during a start waits for none of them.
func TestListenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Listen(ctx, "pixels.example.com", 0)
	if err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("error %v, want that of the context", err)
	}
}

// The error of a privileged port says what to do.
func TestPortBelow1024(t *testing.T) {
	denied := fmt.Errorf("cannot listen on :80: %w", syscall.EACCES)
	const want = "cannot listen on :80: permission denied; ports below 1024 need a privilege: " +
		"start it with the systemd unit, run setcap cap_net_bind_service=+ep on the program, " +
		"or use a higher port behind a front end"
	if got := explainPort(denied, 80); got.Error() != want || !errors.Is(got, syscall.EACCES) {
		t.Errorf("says %q, want %q", got, want)
	}
	taken := fmt.Errorf("cannot listen on :80: %w", syscall.EADDRINUSE)
	for err, port := range map[error]int{denied: 1024, taken: 80} {
		if got := explainPort(err, port); got != err {
			t.Errorf("says %q, want %q", got, err)
		}
	}
}
