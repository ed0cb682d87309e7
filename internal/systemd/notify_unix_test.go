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
	raw, err := m.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
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
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("the manager was told %q, want %q", got, want)
	}
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
	began := time.Now()
	for n.send("STATUS=a") == nil {
	}
	if took := time.Since(began); took > 2*time.Second {
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
		n.Ready(t.Context(), func() string { panic("not to be called") })
		n.Stopping("")
	}
}

// pass waits until d has passed and every goroutine is blocked.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
