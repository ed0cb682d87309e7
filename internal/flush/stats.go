package flush

import (
	"sync"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/stats"
)

// tally is what a Flusher has counted. It has a mutex of its own, so that whoever
// asks waits for no delivery.
type tally struct {
	mu sync.Mutex
	stats.Flushes
}

// Stats returns what the Flusher counts. It may be called by many goroutines at
// once, also while Run or Flush runs.
func (f *Flusher) Stats() stats.Flushes {
	f.tally.mu.Lock()
	defer f.tally.mu.Unlock()
	return f.tally.Flushes
}

// note counts a flush that has ended. Accepted is how many hits the application has
// accepted, delivered whether those were all that the flush took.
func (t *tally) note(delivered bool, accepted int64) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.LastFlush = now
	t.DeliveredHits += accepted
	if delivered {
		t.Delivered++
		t.LastDelivery = now
	} else {
		t.Failed++
	}
}

// sum returns the number of hits in a list.
func sum(list []hits.Count) (n int64) {
	for _, count := range list {
		n += count.Hits
	}
	return n
}
