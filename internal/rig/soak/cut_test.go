//go:build unix

package soak

import (
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// When there are more visitors than connections, the daemon closes connections to make
// room, and clients repeat hits that were not answered. Each hit is counted once.
func TestConnectionsThatMakeRoom(t *testing.T) {
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	l := newLedger()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var application sync.WaitGroup
	application.Go(func() { rig.Accept(listener, l.application) })
	d := rig.StartDaemon(t, map[string]any{
		"endpoint": "http://" + listener.Addr().String(), "interval": 0.3, "maxconnections": 30,
		"sslcert": filepath.Join(folder, "cert.pem"), "sslkey": filepath.Join(folder, "key.pem"),
	})
	done := make(chan struct{})
	var repeated atomic.Int64
	var visitors sync.WaitGroup
	for range 60 {
		visitors.Go(func() { l.visit(t, d.Address, &repeated, done) })
	}
	<-time.After(4 * time.Second)
	close(done)
	visitors.Wait()
	d.Signal(t, syscall.SIGTERM)
	lost, doubt, refused := told(t, d, d.Wait(t))
	listener.Close()
	application.Wait()

	answered, saved := sum(l.answered), sum(l.saved)
	t.Logf("%d hits were answered, %d requests were repeated", answered, repeated.Load())
	if known := saved + lost + refused; known < answered || known-doubt > answered {
		t.Errorf("%d hits are accounted for, or up to %d fewer, want the %d that were answered", known, doubt, answered)
	}
	if got := d.Stderr.String(); !strings.Contains(got, "connections closed for want of room") {
		t.Errorf("no connection has made room; the standard error is:\n%s", got)
	}
	if repeated.Load() == 0 || answered < 100 {
		t.Errorf("%d hits were answered and %d repeated, want at least 100 and 1", answered, repeated.Load())
	}
	summary.cuts = fmt.Sprintf("While connections made room, clients repeated %s requests until %s hits were answered: "+
		"each counted once. ", rig.Number(repeated.Load()), rig.Number(answered))
}

// visit makes hits until done is closed, up to five on a connection, and repeats each
// until it is answered.
func (l *ledger) visit(t *testing.T, address string, repeated *atomic.Int64, done <-chan struct{}) {
	for {
		client := newClient()
		for range 1 + rand.IntN(5) {
			select {
			case <-done:
				client.CloseIdleConnections()
				return
			case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
			}
			key := fmt.Sprint("page", rand.IntN(500))
			limit := time.Now().Add(rig.Deadline)
			for hitOver(client, address, key) != nil {
				if time.Now().After(limit) {
					t.Errorf("%q: not answered, however often it is repeated", key)
					return
				}
				repeated.Add(1)
				client.CloseIdleConnections()
				client = newClient()
			}
			l.add(l.answered, key, 1)
		}
		client.CloseIdleConnections()
	}
}
