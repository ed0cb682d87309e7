package endpoint

import (
	"io"
	"net"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
)

// piped returns an Endpoint for a bubble: script handles each of its connections, which are pipes.
func piped(t *testing.T, interval time.Duration, script func(net.Conn)) *Endpoint {
	e := New(&url.URL{Scheme: "http", Host: "application"}, "/", "", interval)
	e.Dial = rig.Pipes(t, script)
	return e
}

// A POST may take an interval, but a minute at least and ten minutes at most.
func TestTimeouts(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{
		59 * time.Second: time.Minute,
		5 * time.Minute:  5 * time.Minute,
		24 * time.Hour:   10 * time.Minute,
	} {
		synctest.Test(t, func(t *testing.T) {
			e := piped(t, interval, func(conn net.Conn) { io.Copy(io.Discard, conn) })
			began := time.Now()
			r := e.Ping(t.Context())
			if took := time.Since(began); r.Err == nil || took != want {
				t.Errorf("an interval of %v: error %v after %v, want one after %v", interval, r.Err, took, want)
			}
		})
	}
}

func expectDuration(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
}
