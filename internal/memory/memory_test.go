package memory

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/server"
)

// The limit is what can be alive, and changes with each bound.
func TestLimit(t *testing.T) {
	if got, want := limit(256<<20, 5000), int64(576+160)<<20+450_000_000; got != want {
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
	Bound(100<<20, 1024)
	if got, want := debug.SetMemoryLimit(-1), int64(225+160)<<20+92_160_000; got != want {
		t.Errorf("the limit is %d MB, want %d", got>>20, want>>20)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	Bound(200<<20, 1024)
	if got, want := debug.SetMemoryLimit(-1), int64(225+160)<<20+92_160_000; got != want {
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
		Bound(100<<20, 1024)
		if percent := debug.SetGCPercent(100); percent != 100 || ballast != nil {
			t.Errorf("GOGC is %d and the ballast %d MB, though %s is set from outside", percent, len(ballast)>>20, outside)
		}
	}
	t.Setenv("GOMEMLIMIT", "")
	Bound(100<<20, 1024)
	if percent := debug.SetGCPercent(100); percent != 50 || len(ballast) != 32<<20 {
		t.Errorf("GOGC is %d and the ballast %d MB, want 50 and 32", percent, len(ballast)>>20)
	}
}

// Memory is returned once for each spike, when it is over.
func TestSpikes(t *testing.T) {
	const mb = 1 << 20
	s := spike{lowest: 20 * mb}
	for i, look := range []struct {
		held, allocated uint64 // in MB; allocated since the look before
		over            bool
	}{
		{20, 30, false},   // after the start
		{25, 1, false},    // little traffic
		{400, 900, false}, // a spike
		{420, 100, false}, // it goes on
		{420, 20, true},   // it is over
		{180, 1, false},   // what is left is in use
		{185, 1, false},
		{150, 1, false}, // some of it has gone
		{500, 900, false},
		{500, 3, true}, // and the next one
	} {
		now := usage{look.held * mb, s.last.allocated + look.allocated*mb}
		over := s.over(now)
		if over != look.over {
			t.Errorf("look %d: over is %v, want %v", i, over, look.over)
		}
		if over {
			s.returned(usage{180 * mb, now.allocated})
		}
	}
}

// What a spike has taken is returned soon after it, and the looks end with the context.
func TestReturnAfterSpikes(t *testing.T) {
	debug.FreeOSMemory() // so that the block of this test is new memory
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel() // or the bubble would not end
		go ReturnAfterSpikes(ctx)
		<-time.After(lookInterval + time.Second)
		before := read().held
		block := make([]byte, 4*minSpike)
		for i := 0; i < len(block); i += os.Getpagesize() {
			block[i] = 1
		}
		during := read().held
		block = nil
		<-time.After(2 * lookInterval)
		if after := read().held; during < before+3*minSpike || after > before+minSpike {
			t.Errorf("the process holds %d MB before a spike, %d in it and %d after it", before>>20, during>>20, after>>20)
		}
	})
}

// What is read is plausible: the metrics go by these names.
func TestRead(t *testing.T) {
	block := make([]byte, 8<<20)
	before := read()
	block = append(block, make([]byte, 32<<20)...)
	after := read()
	if before.held < uint64(len(block))/5 || after.allocated < before.allocated+32<<20 {
		t.Errorf("%d MB are held; %d MB were allocated, then %d", before.held>>20, before.allocated>>20, after.allocated>>20)
	}
}
