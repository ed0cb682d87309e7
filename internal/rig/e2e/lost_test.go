//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// ledger is an application that keeps each flush once, by its id.
type ledger struct {
	address string

	mu       sync.Mutex
	requests map[string]int // by id
	saved    map[string]bool
	counts   map[string]int64
}

// newLedger starts a ledger. answer is asked first: it returns true if the request is to
// be saved and answered with 204. nth is how often the id has come.
func newLedger(t *testing.T, answer func(l *ledger, w http.ResponseWriter, r *http.Request, nth int) bool) *ledger {
	t.Helper()
	l := &ledger{requests: make(map[string]int), saved: make(map[string]bool), counts: make(map[string]int64)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		id := r.Header.Get("Idempotency-Key")
		l.mu.Lock()
		l.requests[id]++
		nth := l.requests[id]
		l.mu.Unlock()
		if answer(l, w, r, nth) {
			l.save(t, r)
			w.WriteHeader(204)
		}
	}))
	t.Cleanup(server.Close)
	l.address = server.Listener.Addr().String()
	return l
}

// save saves the counts of a flush, once.
func (l *ledger) save(t *testing.T, r *http.Request) {
	t.Helper()
	var counts map[string]int64
	if err := json.Unmarshal([]byte(r.PostForm.Get("json")), &counts); err != nil {
		t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if id := r.Header.Get("Idempotency-Key"); id == "" || !l.saved[id] {
		l.saved[id] = true
		for key, n := range counts {
			l.counts[key] += n
		}
	}
}

// has reports whether the ledger has these counts, and no others.
func (l *ledger) has(want map[string]int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Equal(l.counts, want)
}

// fronts are front ends that wait a second for the application, and what they answer then.
var fronts = map[string]func(t *testing.T, application string) (address, status string){
	"nginx": startImpatientNginx, "Varnish": startVarnish,
}

func startImpatientNginx(t *testing.T, application string) (address, status string) {
	address = "127.0.0.1:" + rig.FreePort(t)
	rig.StartNginx(t, t.TempDir(), fmt.Sprintf(`server {
		listen %s;
		location / {
			proxy_read_timeout 1s;
			proxy_pass http://%s;
		}
	}`, address, application), address)
	return address, "504"
}

func startVarnish(t *testing.T, application string) (address, status string) {
	folder := t.TempDir()
	address = "127.0.0.1:" + rig.FreePort(t)
	host, port, _ := net.SplitHostPort(application)
	vcl := filepath.Join(folder, "varnish.vcl")
	const backend = "vcl 4.1;\nbackend default { .host = %q; .port = %q; .first_byte_timeout = 1s; }\n"
	text := fmt.Sprintf(backend, host, port)
	if err := os.WriteFile(vcl, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	output := rig.NewOutput()
	cmd := exec.Command("varnishd", "-F", "-j", "none", "-n", filepath.Join(folder, "work"), "-a", address,
		"-f", vcl, "-s", "malloc,16m")
	varnish := rig.StartGroup(t, cmd, output, output)
	varnish.WaitListening(t, address)
	return address, "503"
}

// A front end gives up on an application that has saved the flush and takes too long to
// answer. The flush comes again under its id, and counts once, with what came since.
func TestAnswersLostByAFrontEnd(t *testing.T) {
	for name, start := range fronts {
		for _, journal := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, journal %v", name, journal), func(t *testing.T) {
				t.Parallel()
				app := newLedger(t, func(l *ledger, w http.ResponseWriter, r *http.Request, nth int) bool {
					if nth > 1 {
						return true
					}
					l.save(t, r)
					<-r.Context().Done() // the front end has cut the connection
					return false
				})
				address, status := start(t, app.address)
				settings := map[string]any{"endpoint": "http://" + address + "/save", "secret": "s"}
				if journal {
					settings["journal"] = t.TempDir()
				}
				d := rig.StartDaemon(t, settings)
				d.Hit(t, "a", "a", "b")
				d.Signal(t, syscall.SIGUSR2)
				d.Stderr.WaitLine(t, 0, "--- flush failed with code:"+status)
				d.Hit(t, "a", "c")
				want := map[string]int64{"a": 3, "b": 1, "c": 1}
				flushUntil(t, d, 4, func() bool { return app.has(want) })
				d.Stop(t)
				if !app.has(want) {
					t.Errorf("saved %v, want %v", app.counts, want)
				}
				hits.application.Add(sum(want))
			})
		}
	}
}

// A worker of the application has crashed under a flush, and a lock on the id of the
// flush stays. What is counted later arrives meanwhile; the flush itself when the lock is
// gone.
func TestALockThatStays(t *testing.T) {
	for _, journal := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal %v", journal), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var stuck string
			locked := true
			app := newLedger(t, func(l *ledger, w http.ResponseWriter, r *http.Request, nth int) bool {
				mu.Lock()
				defer mu.Unlock()
				id := r.Header.Get("Idempotency-Key")
				if stuck == "" {
					stuck = id
					conn, _, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return false
					}
					rig.Reset(conn)
					return false
				}
				if id == stuck && locked {
					w.WriteHeader(http.StatusConflict)
					return false
				}
				return true
			})
			settings := map[string]any{"endpoint": "http://" + app.address + "/save", "secret": "s"}
			if journal {
				settings["journal"] = t.TempDir()
			}
			d := rig.StartDaemon(t, settings)
			d.Hit(t, "a", "old")
			flushOnce(t, d)
			want := map[string]int64{}
			for n := range int64(10) {
				d.Hit(t, "a", "new")
				want["a"], want["new"] = n+1, n+1
				flushUntil(t, d, 2, func() bool { return app.has(want) })
			}
			mu.Lock()
			locked = false
			mu.Unlock()
			want["a"]++
			want["old"]++
			flushUntil(t, d, 2, func() bool { return app.has(want) })
			d.Stop(t)
			if !app.has(want) {
				t.Errorf("saved %v, want %v", app.counts, want)
			}
			hits.application.Add(sum(want))
		})
	}
}
