//go:build unix

package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// Three daemons behind nginx count for one application. One of them is stopped and
// started again under load. Every hit is answered, and saved once.
func TestFleet(t *testing.T) {
	const total, keys, clients = 100_000, 1000, 16
	a := startApplication(t, "fsync=off")
	var daemons []*rig.Daemon
	var settings []map[string]any
	var pairs []string
	for i := range 3 {
		settings = append(settings, map[string]any{
			"port": rig.FreePort(t), "interval": 1, "endpoint": a.url + "/save_hits", "secret": secret,
		})
		daemons = append(daemons, rig.StartDaemon(t, settings[i]))
		pairs = append(pairs, fmt.Sprintf("10.0.0.%d:9187", i+1), daemons[i].Address)
	}
	n := startNginx(t, "../../../testdata/recipes/nginx/fleet.conf", pairs...)

	var next atomic.Int64           // the number of the next hit
	var answered [keys]atomic.Int64 // hits of each key
	quarter := make(chan struct{})  // closed when a quarter of the hits are made
	back := make(chan struct{})     // closed when nginx uses the restarted daemon again
	var loads sync.WaitGroup
	began := time.Now()
	for range clients {
		loads.Go(func() {
			var conn *tls.Conn
			var r *bufio.Reader
			for i := next.Add(1) - 1; i < total; i = next.Add(1) - 1 {
				if i == total/4 {
					close(quarter)
				}
				if i >= total*3/4 {
					<-back
				}
				// nginx closes a connection after a thousand requests.
				if conn == nil {
					var err error
					if conn, err = n.dial(); err != nil {
						t.Error(err)
						return
					}
					conn.SetDeadline(time.Now().Add(2 * time.Minute))
					r = bufio.NewReader(conn)
				}
				method, rest := "GET", "\r\n"
				if i%4 == 0 { // a beacon
					method, rest = "POST", "Content-Length: 4\r\n\r\ndata"
				}
				fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\n%s", method, rig.Target(fmt.Sprint("article-", i%keys)), rest)
				answer, err := rig.ReadAnswer(r)
				if err != nil || answer.StatusCode != 200 {
					t.Errorf("hit %d: %v, %v", i, answer, err)
					conn.Close()
					conn = nil
					continue
				}
				answered[i%keys].Add(1)
				if answer.Close {
					conn.Close()
					conn = nil
				}
			}
			if conn != nil {
				conn.Close()
			}
		})
	}
	<-quarter
	daemons[1].Stop(t)
	daemons[1] = rig.StartDaemon(t, settings[1])
	<-time.After(2500 * time.Millisecond) // more than nginx's fail_timeout of 2 s
	close(back)
	loads.Wait()
	t.Logf("%d hits in %v", total, time.Since(began).Round(time.Millisecond))
	for i, d := range daemons {
		d.Stop(t)
		if !regexp.MustCompile(`(?m)^\d+:\tarticle-`).MatchString(d.Stdout.String()) {
			t.Errorf("daemon %d got no hits", i)
		}
		if got := d.Stderr.String(); got != "" {
			t.Errorf("the standard error of daemon %d is:\n%s", i, got)
		}
	}
	saved := a.counts(t)
	if len(saved) != keys {
		t.Errorf("%d keys are saved, want %d", len(saved), keys)
	}
	var sum int64
	for i := range answered {
		key := fmt.Sprint("article-", i)
		sum += saved[key]
		if n := answered[i].Load(); saved[key] != n {
			t.Errorf("%s: %d hits are saved, but %d were answered", key, saved[key], n)
		}
	}
	hits.fleet.Add(sum)
	if sum != total {
		t.Errorf("%d hits are saved, want %d", sum, total)
	}
}
