package soak

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// A memoryGroup is a cgroup that bounds the memory of what runs in it.
type memoryGroup struct {
	folder       string
	limit, peak  string // the names of its files
	kills        string // the file with the line oom_kill
	withoutSwaps string // the file with the limit of swap, and what to write to it
}

// newMemoryGroup makes a cgroup of version 1 or 2 with a limit. Only root can: without
// that, the test is skipped, but not in CI.
func newMemoryGroup(t *testing.T, megabytes int) memoryGroup {
	t.Helper()
	const root = "/sys/fs/cgroup"
	g := memoryGroup{filepath.Join(root, "memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", ""}
	if _, err := os.Stat(filepath.Join(g.folder, g.limit)); err != nil {
		g = memoryGroup{root, "memory.max", "memory.peak", "memory.events", "memory.swap.max"}
		// It fails if the controller is on already, or cannot be: then there is no limit to write.
		os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
	}
	g.folder = filepath.Join(g.folder, fmt.Sprintf("pixel-ping-%d-%d", os.Getpid(), megabytes))
	err := os.Mkdir(g.folder, 0o755)
	if err == nil {
		t.Cleanup(func() { os.Remove(g.folder) })
		err = os.WriteFile(filepath.Join(g.folder, g.limit), []byte(fmt.Sprint(megabytes<<20)), 0)
	}
	if err != nil && os.Getenv("CI") == "" {
		t.Skipf("a cgroup with a limit of memory cannot be made here: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if g.withoutSwaps != "" {
		os.WriteFile(filepath.Join(g.folder, g.withoutSwaps), []byte("0"), 0) // missing on a kernel without swap
	}
	return g
}

// number returns the number in a file of the cgroup: the whole of it, or what follows a
// word at the beginning of a line.
func (g memoryGroup) number(t *testing.T, file, word string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.folder, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
				return n
			}
		}
	}
	t.Fatalf("%s has no %q:\n%s", file, word, text)
	return 0
}

// With its defaults, the daemon outlives a flood of invented keys during a flush that
// hangs, and 5,000 visitors without TLS at that time, in a container with little memory.
func TestLittleMemory(t *testing.T) {
	const visitors = 5000
	for _, test := range []struct {
		megabytes int
		key       int // the length of the keys: longer ones fill more memory in the same time
	}{{64, 40}, {128, 200}, {256, 600}} {
		t.Run(fmt.Sprint(test.megabytes, " MB"), func(t *testing.T) {
			g := newMemoryGroup(t, test.megabytes)
			hanging := rig.Listen(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
			port := rig.FreePort(t)
			config := rig.WriteConfig(t, map[string]any{
				"host": "127.0.0.1", "port": port, "interval": 1, "endpoint": "http://" + hanging,
			})
			const script = `echo $$ >"$1/cgroup.procs"; shift; exec "$@"`
			cmd := exec.Command("sh", "-c", script, "sh", g.folder, rig.Binary, config)
			d := &rig.Daemon{Process: rig.Start(t, cmd, rig.NewOutput(), rig.NewOutput()), Address: "127.0.0.1:" + port}
			d.Stdout.WaitLine(t, 0, "Serving")
			if text := d.Stderr.String(); text != "" {
				t.Errorf("with its defaults the daemon warns:\n%s", text)
			}

			// As many keys as the memory has room for without any bound, at least.
			keys := test.megabytes << 20 / (128 + test.key)
			hitMany(t, d.Address, keys, strings.Repeat("x", test.key))
			visitAll(t, d.Address, visitors)

			peak, kills := g.number(t, g.peak, ""), g.number(t, g.kills, "oom_kill ")
			t.Logf("%d keys of %d bytes and %d visitors: peak %d MB of %d", keys, test.key, visitors, peak>>20, test.megabytes)
			if kills != 0 {
				t.Errorf("the kernel has killed %d processes", kills)
			}
			d.Signal(t, syscall.SIGTERM)
			if status := d.Wait(t); status != 1 || !strings.Contains(d.Stderr.String(), "no room for more keys (maxmemory") {
				t.Errorf("exit status %d, and it says:\n%s", status, d.Stderr)
			}
		})
	}
}

// visitAll has that many visitors make a hit, and stay. Each has to be answered.
func visitAll(t *testing.T, address string, visitors int) {
	t.Helper()
	rig.RaiseDescriptors(t, visitors+100)
	conns := make(chan net.Conn, visitors)
	next := make(chan int)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			for i := range next {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					t.Errorf("visitor %d: %v", i, err)
					continue
				}
				conns <- conn
				fmt.Fprintf(conn, "GET /pixel.gif?key=page HTTP/1.1\r\nHost: x\r\n\r\n")
				if answer, err := rig.ReadAnswer(bufio.NewReader(conn)); err != nil || answer.StatusCode != 200 {
					t.Errorf("visitor %d: %v, %v", i, answer, err)
				}
			}
		})
	}
	for i := range visitors {
		next <- i
	}
	close(next)
	clients.Wait()
	close(conns)
	for conn := range conns {
		conn.Close()
	}
}
