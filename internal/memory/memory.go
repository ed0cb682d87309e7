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
	// perConnection is the most that a connection takes over HTTP/1.1, in bytes:
	// net/http's buffers, stacks, TLS, and a header just below its limit.
	perConnection = 64 << 10
	// base is for everything else.
	base = 128 << 20
	// A hit leaves 2 kB of garbage, all of it net/http's. With few keys the heap is
	// small, and the collector would run for every 4 MB. With the ballast, which is
	// never touched and so takes no memory, it runs for every 16 MB: a tenth less
	// processor time for a hit.
	ballastSize = 32 << 20
)

var ballast []byte

// Bound sets the collector's limit to what the process may hold: keys is the
// bound of the store in bytes, connections how many may be open. The limit lies
// above what can be alive, since the collector would run all the time below it.
// Garbage may take half of what is alive; thanks to the ballast it may take more
// while that is little. Bound changes nothing if GOMEMLIMIT or GOGC is set.
func Bound(keys int64, connections int) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetMemoryLimit(limit(keys, connections))
	debug.SetGCPercent(50)
	ballast = make([]byte, ballastSize)
}

// limit is what can be alive: the store and a batch, each up to keys; the batch's
// list, which takes less than a quarter of it; the connections; the rest.
func limit(keys int64, connections int) int64 {
	return 2*keys + keys/4 + int64(connections)*perConnection + base + ballastSize
}

// ReturnAfterSpikes gives memory that is free back to the system once a spike is
// over, until ctx ends. When all has gone quiet, the collector would not run for
// long, and half of the process's memory would stay garbage.
func ReturnAfterSpikes(ctx context.Context) {
	ticker := time.NewTicker(10 * time.Second)
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
	lowest uint64 // bytes held at the start or after the last return, or less
	last   usage
}

// minSpike is how many bytes more than before make a spike.
const minSpike = 32 << 20

// over reports whether a spike has been and is over: the process holds more than
// it once did, and has allocated little of it since the last look.
func (s *spike) over(now usage) bool {
	allocated := now.allocated - s.last.allocated
	s.last = now
	s.lowest = min(s.lowest, now.held)
	return now.held > s.lowest+minSpike && allocated < now.held/8
}

// returned notes what a return has left: the same spike is not over again.
func (s *spike) returned(now usage) { s.lowest, s.last = now.held, now }
