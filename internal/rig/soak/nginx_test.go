package soak

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// A batch of several megabytes, as it is after an outage, reaches an application
// behind an nginx that takes one: all of it, once, in one flush.
func TestTooLargeForNginx(t *testing.T) {
	t.Parallel()
	saved := make(map[string]int64)
	requests := 0
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var counts map[string]int64
		if err := json.Unmarshal([]byte(r.FormValue("json")), &counts); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		// One flush sends one request after the other, so there is no lock.
		requests++
		for key, n := range counts {
			saved[key] += n
		}
	}))
	defer application.Close()

	// Its default limit for a body is 1 MB.
	front := "127.0.0.1:" + rig.FreePort(t)
	rig.StartNginx(t, t.TempDir(), "access_log off; server { listen "+front+"; location / { proxy_pass "+application.URL+"; } }", front)

	daemon, address := start(t, "", map[string]any{"endpoint": "http://" + front + "/save"})
	const keys = 40000
	flood(t, address, keys, strings.Repeat("x", 80))
	daemon.Signal(t, syscall.SIGUSR2)
	daemon.Stdout.WaitLine(t, 0, "--- flushed ---")
	if len(saved) != keys || sum(saved) != keys || requests < 4 {
		t.Errorf("%d hits of %d keys are saved by %d requests, want %d of as many by several", sum(saved), len(saved), requests, keys)
	}
	if got := daemon.Stderr.String(); got != "" {
		t.Errorf("the daemon says:\n%s", got)
	}
}

// An application that answers 413 without reading, and resets the connection,
// is sent less and less until it accepts.
func TestTooLargeWithAReset(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{100, 1000, 100_000, 10_000_000} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		saved := make(map[string]int64)
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err == nil && r.ContentLength > limit {
					rig.Answer("HTTP/1.1 413 Too Large\r\n\r\n")(conn)
					rig.Reset(conn)
					continue
				}
				var counts map[string]int64
				if err == nil && json.Unmarshal([]byte(r.FormValue("json")), &counts) == nil {
					for key, n := range counts {
						saved[key] += n
					}
					rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")(conn)
				}
				conn.Close()
			}
		}()
		daemon, address := start(t, "", map[string]any{"endpoint": "http://" + listener.Addr().String()})
		for i := range 300 {
			hit(t, address, fmt.Sprint("key", i, strings.Repeat("x", i%40)))
		}
		daemon.Signal(t, syscall.SIGUSR2)
		daemon.Stdout.WaitLine(t, 0, "--- flushed ---")
		if len(saved) != 300 || sum(saved) != 300 {
			t.Errorf("limit %d: %d hits of %d keys are saved, want 300", limit, sum(saved), len(saved))
		}
	}
}
