//go:build unix

package e2e

import (
	"bufio"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// A balancer keeps its connections for 3 seconds. If the daemon keeps them for longer, a
// hit over a connection that was idle until the last moment is answered; if not, the
// daemon has closed it.
func TestBalancerThatKeepsConnections(t *testing.T) {
	t.Parallel()
	const connections, idle = 250, 3 * time.Second
	for keepalive, want := range map[float64]int64{8: 2 * connections, 0.5: connections} {
		received := rig.NewEndpoint(t)
		d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + received.Address, "keepalive": keepalive})
		var answered atomic.Int64
		var all sync.WaitGroup
		for range connections {
			all.Go(func() {
				conn, err := net.Dial("tcp", d.Address)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				r := bufio.NewReader(conn)
				for i := range 2 {
					if i == 1 {
						<-time.After(idle)
					}
					io.WriteString(conn, "GET "+rig.Target("a")+" HTTP/1.1\r\nHost: x\r\n\r\n")
					conn.SetReadDeadline(time.Now().Add(rig.Deadline))
					if answer, err := rig.ReadAnswer(r); err == nil && answer.StatusCode == 200 {
						answered.Add(1)
					}
				}
			})
		}
		all.Wait()
		if got := answered.Load(); got != want {
			t.Errorf("keepalive %v: %d hits are answered, want %d", keepalive, got, want)
		}
		d.Stop(t)
		if got := rig.Counts[int64](t, received.Body(t))["a"]; got != want {
			t.Errorf("keepalive %v: %d hits are counted, want %d", keepalive, got, want)
		}
	}
}
