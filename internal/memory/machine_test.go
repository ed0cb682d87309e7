package memory

import (
	"math"
	"runtime/debug"
	"slices"
	"testing"
)

// The defaults follow the machine: with them, what can be alive fits into what the
// collector may use, unless only a few connections would.
func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		machine     Machine
		keys        int64 // in MB
		connections int
	}{
		{16 << 20, 4, 128},
		{64 << 20, 16, 128},
		{128 << 20, 32, 384},
		{256 << 20, 64, 1024},
		{1 << 30, 256, 4864},
		{2 << 30, 256, 8000},
		{math.MaxInt64, 256, 8000},
	} {
		var keys int64
		var connections int
		warnings := test.machine.Fit(&keys, &connections, 8000)
		if keys != test.keys<<20 || connections != test.connections || warnings != nil {
			t.Errorf("%d MB: %d MB of keys and %d connections, warnings %q, want %d and %d",
				test.machine>>20, keys>>20, connections, warnings, test.keys, test.connections)
		}
	}
}

// What is configured stays, and is warned of if it cannot fit.
func TestWhatCanNotFit(t *testing.T) {
	const much = ", but this process may use 128 MB in all; it may be killed"
	for _, test := range []struct {
		megabytes   int64
		connections int
		want        []string
	}{
		{32, 400, nil},
		{42, 400, nil},
		{43, 400, []string{"maxmemory: the keys, and the batch of a flush, may take 112 MB" + much}},
		{256, 8000, []string{"maxmemory: the keys, and the batch of a flush, may take 592 MB" + much,
			"maxconnections: these connections may take 516 MB" + much}},
	} {
		keys, connections := test.megabytes<<20, test.connections
		got := Machine(128<<20).Fit(&keys, &connections, 8000)
		if !slices.Equal(got, test.want) || keys != test.megabytes<<20 || connections != test.connections {
			t.Errorf("%d MB and %d connections: warnings %q, want %q", test.megabytes, test.connections, got, test.want)
		}
		if got := Machine(math.MaxInt64).Fit(&keys, &connections, 8000); got != nil {
			t.Errorf("where nothing is known of the memory, the warnings are %q", got)
		}
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
