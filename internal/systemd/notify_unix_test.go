//go:build unix

package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
)

// manager is the socket of a service manager.
type manager struct{ *net.UnixConn }

// newManager listens where NOTIFY_SOCKET says until the test ends.
func newManager(t *testing.T) manager {
	t.Helper()
	folder, err := os.MkdirTemp("", "notify") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return manager{conn}
}

// expect fails the test unless just these notifications have come.
func (m manager) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := m.drain(t); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("the manager was told %q, want %q", got, want)
	}
}

// drain returns the notifications that have come.
func (m manager) drain(t *testing.T) (got []string) {
	t.Helper()
	raw, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 4096)
	raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := syscall.Recvfrom(int(fd), buffer, 0) // the socket does not block
			if err != nil {
				return true
			}
			got = append(got, string(buffer[:n]))
		}
	})
	return got
}

// The first status goes with READY=1. Later ones are told when they have changed, at
// most once in 5 seconds, and not after the end of the context.
func TestStatus(t *testing.T) {
	m := newManager(t)
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Value
		status.Store("a")
		running, end := context.WithCancel(t.Context())
		n := NewNotifier()
		if _, set := os.LookupEnv("NOTIFY_SOCKET"); set {
			t.Error("children are told of NOTIFY_SOCKET")
		}
		n.Ready(running, func() string { return status.Load().(string) })
		m.expect(t, "READY=1\nSTATUS=a")
		pass(time.Minute)
		m.expect(t)
		for i := range 10 { // for 5 seconds
			status.Store(fmt.Sprint(i))
			pass(500 * time.Millisecond)
		}
		pass(time.Minute)
		m.expect(t, "STATUS=9")
		end()
		n.Stopping("b")
		status.Store("c")
		pass(time.Minute)
		m.expect(t, "STOPPING=1\nSTATUS=b")
	})
}

// The watchdog is answered twice in its time while the loop that flushes keeps its
// promises, during a stop, too. It is not answered any more after a promise was broken.
func TestWatchdog(t *testing.T) {
	m := newManager(t)
	t.Setenv("WATCHDOG_USEC", "10000000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	synctest.Test(t, func(t *testing.T) {
		running, end := context.WithCancel(t.Context())
		n := NewNotifier()
		defer n.Close()
		for _, name := range []string{"WATCHDOG_USEC", "WATCHDOG_PID"} {
			if _, set := os.LookupEnv(name); set {
				t.Errorf("children are told of %s", name)
			}
		}
		n.Expect(10 * time.Minute) // the answer of the application
		n.Ready(running, func() string { return "a" })
		pass(time.Second)
		const alive = "WATCHDOG=1"
		m.expect(t, "READY=1\nSTATUS=a", alive)
		pass(10 * time.Second)
		m.expect(t, alive, alive)
		end()
		pass(10 * time.Second)
		m.expect(t, alive, alive)
		for range 70 {
			pass(10 * time.Second)
			m.drain(t)
		}
		pass(10 * time.Second)
		m.expect(t) // the loop is dead
		n.Expect(time.Second)
		pass(10 * time.Second)
		m.expect(t, alive, alive)
	})
}

// A watchdog that does not ask this process is not answered.
func TestOtherWatchdogs(t *testing.T) {
	m := newManager(t)
	name := os.Getenv("NOTIFY_SOCKET")
	for usec, pid := range map[string]string{"10000000": "1", "": "", "x": "", "-1": "", "0": ""} {
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", usec)
		t.Setenv("WATCHDOG_PID", pid)
		synctest.Test(t, func(t *testing.T) {
			n := NewNotifier()
			defer n.Close()
			n.Expect(time.Hour)
			n.Ready(t.Context(), func() string { return "a" })
			pass(time.Minute)
			m.expect(t, "READY=1\nSTATUS=a")
		})
	}
}

// What could not be told is told later.
func TestManagerThatIsAway(t *testing.T) {
	m := newManager(t)
	synctest.Test(t, func(t *testing.T) {
		n := NewNotifier()
		away := n.address.Name + ".away"
		os.Rename(n.address.Name, away)
		var status atomic.Value
		status.Store("a")
		n.Ready(t.Context(), func() string { return status.Load().(string) })
		pass(7 * time.Second)
		m.expect(t)
		os.Rename(away, n.address.Name)
		pass(5 * time.Second)
		m.expect(t, "READY=1\nSTATUS=a")
		os.Rename(n.address.Name, away)
		status.Store("b")
		pass(7 * time.Second)
		os.Rename(away, n.address.Name)
		pass(5 * time.Second)
		m.expect(t, "STATUS=b")
	})
}

// A manager that does not read its notifications holds nobody up.
func TestManagerThatHangs(t *testing.T) {
	newManager(t)
	n := NewNotifier()
	watch := rig.StartStopwatch(t)
	for n.send("STATUS=a") == nil {
	}
	if took := watch.Took(); took > 2*time.Second {
		t.Errorf("a notification took %v", took)
	}
}

// Without a manager nobody is told, and nothing fails.
func TestNoManager(t *testing.T) {
	for _, name := range []string{"", "relative", "vsock:2:1"} {
		t.Setenv("NOTIFY_SOCKET", name)
		n := NewNotifier()
		if n != nil {
			t.Errorf("NOTIFY_SOCKET=%s is taken for a manager", name)
		}
		n.Expect(time.Hour)
		n.Ready(t.Context(), func() string { panic("not to be called") })
		n.Stopping("")
		n.Close()
	}
}

// pass waits until d has passed and every goroutine is blocked.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
