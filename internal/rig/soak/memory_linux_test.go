package soak

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// memoryGroup makes a cgroup whose processes may have so many bytes, without swap. It
// returns the folder, which is removed when the test ends.
func memoryGroup(t *testing.T, limit int64) (folder string) {
	t.Helper()
	name := fmt.Sprintf("pixel-ping-rig-%d-%d", os.Getpid(), limit>>20)
	limits := map[string]int64{"memory.max": limit, "memory.swap.max": 0}
	parent := "/sys/fs/cgroup"
	if _, err := os.Stat(parent + "/memory/memory.limit_in_bytes"); err == nil { // version 1
		parent += "/memory"
		limits = map[string]int64{"memory.limit_in_bytes": limit, "memory.swappiness": 0}
	} else if err := os.WriteFile(parent+"/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
		t.Fatal(err)
	}
	folder = filepath.Join(parent, name)
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The daemon has ended, and the kernel takes a moment.
		for limit := time.Now().Add(rig.Deadline); ; <-time.After(10 * time.Millisecond) {
			if err := os.Remove(folder); err == nil || time.Now().After(limit) {
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	})
	for file, value := range limits {
		err := os.WriteFile(filepath.Join(folder, file), fmt.Append(nil, value), 0)
		if file == "memory.swap.max" && errors.Is(err, os.ErrNotExist) {
			continue // the kernel has no swap
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// killed reports whether the kernel has killed a process of the cgroup for its memory.
func killed(t *testing.T, folder string) bool {
	t.Helper()
	for _, file := range []string{"memory.events", "memory.oom_control"} {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if count, found := strings.CutPrefix(line, "oom_kill "); found {
				return count != "0\n"
			}
		}
	}
	t.Fatalf("%s does not tell whether the kernel has killed a process", folder)
	return false
}

// On machines of any size the daemon lives through a flood of invented keys while the
// application hangs, and through 5,000 visitors who stay, with nothing set but its
// endpoint.
func TestSmallMachines(t *testing.T) {
	const visitors = 5000
	rig.RaiseDescriptors(t, visitors+1000)
	for _, megabytes := range []int64{64, 128, 256} {
		t.Run(fmt.Sprint(megabytes, " MB"), func(t *testing.T) {
			group := memoryGroup(t, megabytes<<20)
			defer func() {
				if killed(t, group) {
					t.Error("the kernel has killed the daemon for its memory")
				}
			}()
			application, answer := rig.NewEndpoint(t), make(chan struct{})
			application.SetAnswer(func(conn net.Conn) {
				<-answer
				rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")(conn)
			})
			accept := sync.OnceFunc(func() { close(answer) })
			t.Cleanup(accept)
			d := rig.StartProgram(t, map[string]any{"endpoint": "http://" + application.Address},
				"sh", "-ec", `echo $$ >"$0/cgroup.procs"; exec "$@"`, group, rig.Binary)
			d.Stdout.WaitLine(t, 0, "Serving")

			// By default the keys may take a quarter of the memory, and each takes 128 bytes
			// and its length. This is three times as much: a batch, the next one, and hits
			// that are not counted.
			length := int(megabytes)
			keys := 3 * int(megabytes) << 20 / 4 / (128 + length)
			hitMany(t, d.Address, keys, strings.Repeat("x", length-6))
			t.Logf("%s keys: %d MB at most", rig.Number(int64(keys)), d.Memory(t).Peak>>20)

			var conns []net.Conn
			for range visitors {
				conn, err := rig.Dial(d.Address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conns = append(conns, conn)
				if err := visitOnce(conn); err != nil {
					t.Fatalf("visitor %d: %v", len(conns), err)
				}
			}
			t.Logf("%s visitors: %d MB at most", rig.Number(visitors), d.Memory(t).Peak>>20)
			accept()
			d.Stop(t)
		})
	}
}

// visitOnce makes a hit over a connection, and leaves it open.
func visitOnce(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	if _, err := fmt.Fprintf(conn, "GET /pixel.gif?key=page HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	answer, err := rig.ReadAnswer(bufio.NewReader(conn))
	if err == nil && answer.StatusCode != 200 {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	return err
}
