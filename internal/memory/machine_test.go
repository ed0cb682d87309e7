package memory

import (
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"testing"
)

// The defaults follow the machine: with them, what can be alive fits into what the
// collector may use, unless only a few connections would.
func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		megabytes, keys Machine
		connections     int
	}{{16, 4, 128}, {64, 16, 128}, {128, 32, 384}, {256, 64, 1024}, {1024, 256, 4864}, {2048, 256, 8000}, {1 << 20, 256, 8000}} {
		m := test.megabytes << 20
		keys := m.DefaultKeys()
		connections := m.DefaultConnections(keys, 8000)
		if keys != int64(test.keys)<<20 || connections != test.connections {
			t.Errorf("%d MB: %d MB of keys and %d connections, want %d and %d",
				test.megabytes, keys>>20, connections, test.keys, test.connections)
		}
		if warnings := m.Warnings(keys, connections); test.megabytes >= 64 && warnings != nil {
			t.Errorf("%d MB: the defaults are warned of: %q", test.megabytes, warnings)
		}
	}
	if keys := Machine(math.MaxInt64).DefaultKeys(); keys != 256<<20 {
		t.Errorf("where nothing is known of the memory, keys may take %d MB", keys>>20)
	}
	if got := Machine(1<<40).DefaultConnections(256<<20, 100); got != 100 {
		t.Errorf("%d connections, want at most 100", got)
	}
}

// What cannot fit is warned of.
func TestWarnings(t *testing.T) {
	const keys = "maxmemory: the keys, and the batch of a flush, may take %d MB, but this process may use 128 MB in all; " +
		"it may be killed"
	for _, test := range []struct {
		megabytes   int64
		connections int
		want        []string
	}{
		{32, 400, nil},
		{42, 400, nil},
		{43, 400, []string{fmt.Sprintf(keys, 43*9/4+16)}},
		{256, 400, []string{fmt.Sprintf(keys, 256*9/4+16)}},
		{32, 8000, []string{"maxconnections: these connections may take 516 MB, but this process may use 128 MB in all; " +
			"it may be killed"}},
	} {
		if got := Machine(128<<20).Warnings(test.megabytes<<20, test.connections); !slices.Equal(got, test.want) {
			t.Errorf("%d MB and %d connections: warnings %q, want %q", test.megabytes, test.connections, got, test.want)
		}
	}
	if got := Machine(math.MaxInt64).Warnings(1<<50, math.MaxInt32); got != nil {
		t.Errorf("where nothing is known of the memory, the warnings are %q", got)
	}
}

// The collector's limit lies below what the machine has, and a small machine has no
// ballast.
func TestLimitOnASmallMachine(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	ballast = nil
	Bound(128<<20, 256<<20, 8000)
	if got := debug.SetMemoryLimit(-1); got != 112<<20 || ballast != nil {
		t.Errorf("the limit is %d MB and the ballast %d MB, want 112 and none", got>>20, len(ballast)>>20)
	}
}
