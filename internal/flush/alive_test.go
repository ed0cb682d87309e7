package flush

import (
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
)

// Run keeps what it promises to Alive, however long the interval is, and gives no sign
// of life while a flush hangs.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, store, _, _ := newFlusher(nil)
		f.Interval = time.Hour
		hang := make(chan bool)
		f.Endpoint = senderFunc(func(*endpoint.Batch) { <-hang })
		var promised time.Time
		calls := 0
		f.Alive = func(within time.Duration) {
			if calls++; calls > 1 && time.Now().After(promised) {
				t.Errorf("a sign of life comes %v too late", time.Since(promised))
			}
			promised = time.Now().Add(within)
		}
		stopped := make(chan struct{})
		go f.Run(t.Context(), stopped, nil)
		<-time.After(time.Hour - time.Second)
		if calls < 100 {
			t.Errorf("%d signs of life in an hour", calls)
		}
		store.Record("a")
		<-time.After(2 * time.Second)
		during := calls
		<-time.After(time.Hour)
		if calls != during || time.Now().Before(promised) {
			t.Errorf("%d signs of life come from a loop that hangs", calls-during)
		}
		promised = time.Now()
		close(hang)
		close(stopped)
		synctest.Wait()
	})
}
