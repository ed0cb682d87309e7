//go:build unix

package server

import (
	"syscall"
	"testing"
)

// Descriptors are left for the daemon's own work.
func TestDescriptorsBoundConnections(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)
	for _, test := range []struct {
		files, setting, limit int
	}{{100, 50, 50}, {100, 200, 68}, {40, 200, 8}, {int(before.Cur), 5, 5}} {
		files := before
		set(&files.Cur, test.files)
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
			t.Fatal(err)
		}
		if got := limitConnections(test.setting); got != test.limit {
			t.Errorf("%d descriptors and maxconnections %d: %d connections, want %d", test.files, test.setting, got, test.limit)
		}
	}
}

// set sets a limit, whose type depends on the system.
func set[N int64 | uint64](limit *N, n int) { *limit = N(n) }
