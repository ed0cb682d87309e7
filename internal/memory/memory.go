// Package memory tells the garbage collector how much the process may hold, and
// gives memory back to the system when a spike is over.
package memory

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// perConnection is the most that a connection takes, in bytes: its goroutine's stack,
	// net/http's buffers, as many headers as a request may have, and in TLS a record
	// without an end. A test makes clients that do this, and measures. An idle one takes
	// less than a third of it.
	perConnection = 90_000
	// base is for everything else, in bytes: the program and its other buffers.
	base = 128 << 20
	// ballastSize is the size of a block that counts as heap, in bytes. Each hit leaves
	// 2 kB of garbage, all of it net/http's. With few keys the heap is small, and the
	// collector would run after every few megabytes of garbage. With the ballast it runs
	// after 16 MB, which is a tenth less processor time for a hit. The ballast itself is
	// never touched, so it takes no memory.
	ballastSize = 32 << 20
)

var ballast []byte

// Bound sets the collector's limit to what the process may hold: keys is the
// bound of the store in bytes, connections how many may be open. The limit lies
// above what can be alive: with a limit below that, the collector would run all the
// time. Bound also lets garbage take half of what is alive, the ballast included.
// Bound changes nothing if the operator has set GOMEMLIMIT or GOGC.
func Bound(keys int64, connections int) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetMemoryLimit(limit(keys, connections))
	debug.SetGCPercent(50)
	ballast = make([]byte, ballastSize)
}

// limit returns how many bytes can be alive: the store and a batch, each up to keys;
// the batch's list, which takes less than a quarter of the batch; the connections;
// everything else.
func limit(keys int64, connections int) int64 {
	return 2*keys + keys/4 + int64(connections)*perConnection + base + ballastSize
}

// ReturnAfterSpikes gives memory that is free back to the system each time a spike is
// over, until ctx ends. Without it, the collector would not run for long after the
// spike, since little is allocated then, and half of the process's memory would stay
// garbage.
func ReturnAfterSpikes(ctx context.Context) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	s := spike{lowest: read().held}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if s.over(read()) {
			debug.FreeOSMemory()
			s.returned(read())
		}
	}
}

// lookInterval is the time between two looks at the use of memory. A look costs some
// microseconds, and a spike has to be over for one interval.
const lookInterval = 10 * time.Second

// usage is how many bytes the process holds, and how many it has allocated since
// its start.
type usage struct{ held, allocated uint64 }

func read() usage {
	samples := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
		{Name: "/gc/heap/allocs:bytes"},
	}
	metrics.Read(samples)
	return usage{samples[0].Value.Uint64() - samples[1].Value.Uint64(), samples[2].Value.Uint64()}
}

// A spike follows the use of memory from one look to the next.
type spike struct {
	lowest uint64 // bytes held at the start or after the last return; less if it has fallen since
	last   usage  // at the last look
}

// minSpike is how many bytes more than lowest make a spike. It is the memory of about
// a thousand visitors; returning less is not worth a collection.
const minSpike = 32 << 20

// over reports whether there was a spike and it is over: the process holds minSpike
// more than lowest, and has allocated less than an eighth of that since the last look.
func (s *spike) over(now usage) bool {
	allocated := now.allocated - s.last.allocated
	s.last = now
	s.lowest = min(s.lowest, now.held)
	return now.held > s.lowest+minSpike && allocated < now.held/8
}

// returned notes what the process holds after a return, so that over does not report
// the same spike again.
func (s *spike) returned(now usage) { s.lowest, s.last = now.held, now }
