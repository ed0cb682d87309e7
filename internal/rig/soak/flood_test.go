package soak

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// flood makes a hit for each of many keys that end alike, one behind the other on
// one connection, and waits until all are answered.
func flood(t *testing.T, address string, keys int, ending string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		w := bufio.NewWriter(conn)
		for i := range keys {
			fmt.Fprintf(w, "GET /pixel.gif?key=%d%s HTTP/1.1\r\nHost: x\r\n\r\n", i, ending)
		}
		w.Flush()
	}()
	r := bufio.NewReader(conn)
	for i := range keys {
		answer, err := http.ReadResponse(r, nil)
		if err != nil || answer.StatusCode != 200 {
			t.Fatalf("hit %d: %v, %v", i, answer, err)
		}
		io.Copy(io.Discard, answer.Body)
	}
}

// A flood of invented keys, while the application is down, is served; what the
// daemon holds is bounded; and it says of each hit what became of it.
func TestFlood(t *testing.T) {
	t.Parallel()
	const keys = 400_000
	daemon, address := start(t, "", map[string]any{"endpoint": "http://127.0.0.1:" + rig.FreePort(t), "interval": 1, "maxmemory": 10})
	flood(t, address, keys, "")
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", daemon.Cmd.Process.Pid)); err == nil {
		for line := range strings.Lines(string(status)) {
			var kilobytes int
			if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
				t.Logf("peak memory %d MB", kilobytes>>10)
				if kilobytes > 100<<10 {
					t.Errorf("peak memory %d MB, want 100 MB at the most", kilobytes>>10)
				}
			}
		}
	}
	daemon.Signal(t, syscall.SIGTERM)
	daemon.Wait(t)
	var sum, n, held int64
	for line := range strings.Lines(daemon.Stderr.String()) {
		if _, err := fmt.Sscanf(line, "pixel-ping: %d hits of", &n); err == nil {
			sum += n
			if strings.Contains(line, "were not delivered") {
				held = n
			}
		}
	}
	if sum != keys {
		t.Errorf("%d hits were answered, and %d are told of", keys, sum)
	}
	// A key costs 128 bytes and its own length.
	if most := int64(2 * 10 << 20 / 129); held > most || held < most/4 {
		t.Errorf("%d hits of as many keys were held, want %d at the most", held, most)
	}
}
