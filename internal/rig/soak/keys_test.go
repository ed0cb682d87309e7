//go:build unix

package soak

import (
	"bufio"
	"fmt"
	"net"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// hitMany makes a hit for each of many keys on one connection, without waiting
// for the answers before, and returns when all are answered. The keys are numbers
// followed by ending.
func hitMany(t *testing.T, address string, keys int, ending string) {
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
		if answer, err := rig.ReadAnswer(r); err != nil || answer.StatusCode != 200 {
			t.Fatalf("hit %d: %v, %v", i, answer, err)
		}
	}
}

// While the application is down, the daemon serves a flood of invented keys, and
// flushes all the time. The memory that it takes is bounded, and its log accounts
// for every hit.
func TestFlood(t *testing.T) {
	t.Parallel()
	const flushes, keys = 100, 400_000
	d := rig.StartDaemon(t, map[string]any{
		"endpoint": "http://127.0.0.1:" + rig.FreePort(t), "interval": 1, "maxmemory": 10,
	})
	for i := range flushes {
		d.Signal(t, syscall.SIGUSR2)
		hitMany(t, d.Address, keys/flushes, fmt.Sprintf("-%d", i))
	}
	peak := d.Memory(t).Peak
	t.Logf("peak memory %d MB", peak>>20)
	if peak > 100<<20 {
		t.Errorf("peak memory %d MB, want at most 100 MB", peak>>20)
	}
	d.Signal(t, syscall.SIGTERM)
	held, doubt, refused := told(t, d, d.Wait(t))
	if sum := held + refused; sum < keys || sum-doubt > keys {
		t.Errorf("%d hits were answered, but the log accounts for %d, or up to %d fewer", keys, sum, doubt)
	}
	// A key takes 128 bytes and its own length. The store may fill twice: while
	// one batch is being sent, another one is collected.
	if most := int64(2 * 10 << 20 / 129); held-doubt > most || held < most/4 {
		t.Errorf("%d keys were held, want at most %d and at least a quarter of that", held, most)
	}
}
