package memory

import (
	"context"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/server"
)

// The limit is what can be alive, and changes with each bound.
func TestLimit(t *testing.T) {
	if got, want := limit(256<<20, 5000), int64(576+176)<<20+450_000_000; got != want {
		t.Errorf("the limit is %d, want %d", got, want)
	}
	if limit(257<<20, 5000)-limit(256<<20, 5000) < 2<<20 {
		t.Error("a larger store does not have room for itself and a batch")
	}
}

// The README and the registry say what the bounds are.
func TestBoundsAreSaid(t *testing.T) {
	bounds := limit(256<<20, server.DefaultConnections) - base - ballastSize
	for path, sayings := range map[string][]string{
		"../../README.md": {
			fmt.Sprintf("| `maxconnections` | number or numeric string | %d |", server.DefaultConnections),
			fmt.Sprintf("%d kB at worst", perConnection/1000),
			fmt.Sprintf("%.2f GB", float64(bounds)/1e9),
		},
		"../server/registry.go": {
			fmt.Sprintf("DefaultConnections = %d\n", server.DefaultConnections),
			fmt.Sprintf("at most %d kB", perConnection/1000),
			fmt.Sprintf("%.2f GB", float64(bounds)/1e9),
		},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, saying := range sayings {
			if !strings.Contains(string(text), saying) {
				t.Errorf("%s does not say %q", path, saying)
			}
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	Bound(math.MaxInt64, 100<<20, 1024)
	if got, want := debug.SetMemoryLimit(-1), int64(225+176)<<20+92_160_000; got != want {
		t.Errorf("the limit is %d MB, want %d", got>>20, want>>20)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	Bound(math.MaxInt64, 200<<20, 1024)
	if got, want := debug.SetMemoryLimit(-1), int64(225+176)<<20+92_160_000; got != want {
		t.Errorf("the limit is %d MB, though it was set from outside", got>>20)
	}
}

func TestCollector(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	ballast = nil
	for _, outside := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(outside, "200")
		Bound(math.MaxInt64, 100<<20, 1024)
		if percent := debug.SetGCPercent(100); percent != 100 || ballast != nil {
			t.Errorf("GOGC is %d and the ballast %d MB, though %s is set from outside", percent, len(ballast)>>20, outside)
		}
	}
	t.Setenv("GOMEMLIMIT", "")
	Bound(math.MaxInt64, 100<<20, 1024)
	if percent := debug.SetGCPercent(100); percent != 33 || len(ballast) != 48<<20 {
		t.Errorf("GOGC is %d and the ballast %d MB, want 33 and 48", percent, len(ballast)>>20)
	}
}

// Free memory is returned within a minute; at the end of a spike within two seconds, and not
// while its connections come.
func TestReturn(t *testing.T) {
	// No other collection frees the block: the runtime would return it by and by.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	held := func() uint64 { // bytes that the process has of the system
		samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		metrics.Read(samples)
		return samples[0].Value.Uint64() - samples[1].Value.Uint64()
	}
	const size = 128 << 20
	for _, test := range []struct {
		open []int         // how many connections there are, second by second
		want time.Duration // when the memory is returned
	}{
		{[]int{0}, time.Minute},
		{[]int{499}, time.Minute},
		{[]int{300, 600, 900, 920}, 4 * time.Second},
		{[]int{500, 1000, 1500, 2000, 2500, 2500}, 6 * time.Second},
	} {
		debug.FreeOSMemory() // so that the block of this test is new memory
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel() // or the bubble would not end
			second := -1
			go Return(ctx, func() int {
				second = min(second+1, len(test.open)-1)
				return test.open[second]
			})
			before := held()
			block := make([]byte, size)
			for i := 0; i < len(block); i += os.Getpagesize() {
				block[i] = 1
			}
			block = nil
			for _, moment := range []time.Duration{test.want - time.Millisecond, 2 * time.Millisecond} {
				<-time.After(moment)
				synctest.Wait()
				if now, returned := held(), moment == 2*time.Millisecond; returned != (now < before+size/4) {
					t.Errorf("%v: the process holds %d MB before a spike and %d after it; returned is %v",
						test.open, before>>20, now>>20, returned)
				}
			}
		})
	}
}
