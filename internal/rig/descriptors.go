//go:build unix

package rig

import (
	"syscall"
	"testing"
)

// RaiseDescriptors lets this process, and each process that it starts from now on,
// have n descriptors open.
func RaiseDescriptors(t testing.TB, n int) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	raise(&limit.Cur, n)
	if limit.Cur > limit.Max {
		t.Fatalf("the test needs %d descriptors, but the hard limit is %d: raise it with ulimit -Hn", n, limit.Max)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// raise raises a limit, whose type depends on the system, to n.
func raise[N int64 | uint64](limit *N, n int) { *limit = max(*limit, N(n)) }
