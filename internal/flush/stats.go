package flush

import (
	"sync"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/stats"
)

// tally is what a Flusher has counted. It has a mutex of its own, so that whoever
// asks waits for no delivery.
type tally struct {
	mu sync.Mutex
	stats.Flushes
	failing bool // a delivery of the flush under way has failed
}

// Stats returns what the Flusher counts. It may be called by many goroutines at
// once, also while Run or Flush runs.
func (f *Flusher) Stats() stats.Flushes {
	f.tally.mu.Lock()
	defer f.tally.mu.Unlock()
	return f.tally.Flushes
}

// note counts a delivery, of which a flush may have several. Accepted is how many hits
// the application has accepted, whole whether those were all.
func (t *tally) note(whole bool, accepted int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.DeliveredHits += accepted
	t.failing = t.failing || !whole
}

// end counts a flush that has ended. Doubtful is the batch that it leaves in doubt, or
// nil.
func (t *tally) end(doubtful *endpoint.Batch) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.LastFlush, t.InDoubt = now, 0
	if doubtful != nil {
		t.InDoubt = sum(doubtful.Doubtful())
	}
	if t.failing || doubtful != nil {
		t.Failed++
	} else {
		t.Delivered++
		t.LastDelivery = now
	}
	t.failing = false
}
