// Package memory tells the garbage collector how much the process may hold, and gives
// free memory back to the system.
package memory

import (
	"context"
	"os"
	"runtime/debug"
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
	// garbage is how many percent of what is alive may be garbage before the collector
	// runs. It is a third: with a half, a visitor who stays takes 33 kB until the next
	// collection instead of 28.5, and a flood 100 MB more. With a quarter, hits beside
	// many visitors cost up to a fifth more.
	garbage = 33
	// ballastSize is the size of a block that counts as heap, in bytes. Each hit leaves
	// 2 kB of garbage, all of it net/http's. With few keys the heap is small, and the
	// collector would run after every few megabytes of garbage. With the ballast it runs
	// after 16 MB, which is a tenth less processor time for a hit. The ballast itself is
	// never touched, so it takes no memory.
	ballastSize = 48 << 20
)

var ballast []byte

// Bound sets the collector's limit to what the process may hold: keys is the bound of the
// store in bytes, connections how many may be open. The limit lies above what can be alive:
// with a limit below that, the collector would run all the time. If the machine has less
// memory, the limit is what the collector may use of it, and there is no ballast.
//
// Bound also lets garbage take a third of what is alive, the ballast included. It changes
// nothing if the operator has set GOMEMLIMIT or GOGC.
func Bound(machine Machine, keys int64, connections int) {
	if os.Getenv("GOMEMLIMIT") != "" || os.Getenv("GOGC") != "" {
		return
	}
	debug.SetGCPercent(garbage)
	alive := limit(keys, connections)
	if share := machine.share(); alive > share {
		debug.SetMemoryLimit(share)
		return
	}
	debug.SetMemoryLimit(alive)
	ballast = make([]byte, ballastSize)
}

// limit returns how many bytes can be alive: the store and a batch, each up to keys;
// the batch's list, which takes less than a quarter of the batch; the connections;
// everything else.
func limit(keys int64, connections int) int64 {
	return flushed(keys) + int64(connections)*perConnection + base + ballastSize
}

// flushed returns how many bytes keys take during a flush, at most.
func flushed(keys int64) int64 { return 2*keys + keys/4 }

const (
	// returnInterval is the time between two returns of memory, in seconds. A return is a
	// collection, which takes some milliseconds, or some hundred with as many keys as
	// maxmemory has room for.
	returnInterval = 60
	// spike is how many connections have to come after a return for an early one. The
	// handshakes of 500 leave 3 MB that can be returned.
	spike = 500
)

// Return gives free memory back to the system until ctx ends. It does so each minute, and
// early when a spike is over: there are 500 more connections than after the last return,
// and fewer than 50 have come in the last second. open returns how many there are.
//
// The runtime would do so within some four minutes. Each visitor of a spike over TLS who
// stays takes 32 to 36 kB until a return, and 28 after it.
func Return(ctx context.Context, open func() int) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for second, returned, before := 1, 0, 0; ; second++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := open()
		if second%returnInterval == 0 || now >= returned+spike && now < before+spike/10 {
			debug.FreeOSMemory()
			returned = now
		}
		returned, before = min(returned, now), now
	}
}
