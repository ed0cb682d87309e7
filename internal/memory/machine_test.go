package memory

import (
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"testing"
)

// The defaults follow the machine: with them, what can be alive fits into what the
// collector may use, unless only minConnections would.
func TestDefaults(t *testing.T) {
	const most = 8000
	before := 0
	for _, test := range []struct{ machine, keys int64 }{ // in MB
		{16, 4}, {64, 16}, {128, 32}, {256, 64}, {512, 128}, {1024, 256}, {4096, 256}, {math.MaxInt64 >> 20, 256},
	} {
		var keys int64
		var connections int
		machine := Machine(test.machine << 20)
		if warnings := machine.Fit(&keys, &connections, most); keys != test.keys<<20 || warnings != nil {
			t.Errorf("%d MB: %d MB of keys, warnings %q, want %d", test.machine, keys>>20, warnings, test.keys)
		}
		alive := flushed(keys) + program + int64(connections)*perConnection
		if connections < before || connections < minConnections || connections > most ||
			connections > minConnections && alive > machine.share() ||
			connections < most && alive+perConnection <= machine.share() {
			t.Errorf("%d MB: %d connections", test.machine, connections)
		}
		before = connections
	}
	if before != most {
		t.Errorf("where nothing is known of the memory there may be %d connections, want %d", before, most)
	}
}

// What is configured stays, and is warned of if it cannot fit.
func TestWhatCanNotFit(t *testing.T) {
	const much = ", but this process may use 128 MB in all; it may be killed"
	bytes := int64(8000)*perConnection + program
	for _, test := range []struct {
		megabytes   int64
		connections int
		want        []string
	}{
		{32, 400, nil},
		{42, 400, nil},
		{43, 400, []string{"maxmemory: the keys, and the batch of a flush, may take 112 MB" + much}},
		{256, 8000, []string{"maxmemory: the keys, and the batch of a flush, may take 592 MB" + much,
			fmt.Sprintf("maxconnections: these connections may take %d MB", bytes>>20) + much}},
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
