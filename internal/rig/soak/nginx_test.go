//go:build unix

package soak

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// One flush delivers a batch of several megabytes through an nginx that accepts
// bodies of one megabyte. Every hit is saved once.
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
		// A flush sends one request at a time, so saved needs no lock.
		requests++
		for key, n := range counts {
			saved[key] += n
		}
	}))
	defer application.Close()

	// One megabyte is nginx's default limit.
	front := "127.0.0.1:" + rig.FreePort(t)
	rig.StartNginx(t, t.TempDir(),
		"access_log off; server { listen "+front+"; location / { proxy_pass "+application.URL+"; } }", front)

	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + front + "/save"})
	const keys = 40000
	hitMany(t, d.Address, keys, strings.Repeat("x", 80))
	d.Flush(t)
	if len(saved) != keys || sum(saved) != keys || requests < 4 {
		t.Errorf("%d hits of %d keys are saved by %d requests, want %d hits of as many keys by at least 4",
			sum(saved), len(saved), requests, keys)
	}
	if got := d.Stderr.String(); got != "" {
		t.Errorf("the standard error is:\n%s", got)
	}
}

// When an application answers 413 without reading the body and resets the
// connection, the daemon sends smaller parts until the application accepts them.
func TestTooLargeWithAReset(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{100, 1000, 100_000, 10_000_000} {
		saved := make(map[string]int64)
		address := rig.Listen(t, func(conn net.Conn) {
			r, err := http.ReadRequest(bufio.NewReader(conn))
			if err == nil && r.ContentLength > limit {
				rig.Answer("HTTP/1.1 413 Too Large\r\n\r\n")(conn)
				rig.Reset(conn)
				return
			}
			var counts map[string]int64
			if err == nil && json.Unmarshal([]byte(r.FormValue("json")), &counts) == nil {
				for key, n := range counts {
					saved[key] += n
				}
				rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")(conn)
			}
		})
		d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + address})
		for i := range 300 {
			d.Hit(t, fmt.Sprint("key", i, strings.Repeat("x", i%40)))
		}
		d.Flush(t)
		if len(saved) != 300 || sum(saved) != 300 {
			t.Errorf("limit %d: %d hits of %d keys are saved, want 300", limit, sum(saved), len(saved))
		}
	}
}
