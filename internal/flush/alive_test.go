package flush

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Run keeps what it promises to Alive, however long the interval is, and gives no sign
// of life while a flush hangs.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, store, _, _ := newFlusher(nil)
		f.Interval = time.Hour
		hang := make(chan bool)
		f.Endpoint = hanging(hang)
		var mu sync.Mutex
		var calls int
		var promised time.Time
		f.Alive = func(within time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if calls++; calls > 1 && time.Now().After(promised) {
				t.Errorf("a sign of life comes %v too late", time.Since(promised))
			}
			promised = time.Now().Add(within)
		}
		// after returns how many signs of life there were at that time from now.
		after := func(d time.Duration) int {
			<-time.After(d)
			mu.Lock()
			defer mu.Unlock()
			return calls
		}
		stopped := make(chan struct{})
		go f.Run(t.Context(), stopped, nil)
		if n := after(time.Hour - time.Second); n < 100 {
			t.Errorf("%d signs of life in an hour", n)
		}
		store.Record("a")
		during := after(2 * time.Second)
		if n := after(time.Hour); n != during {
			t.Errorf("%d signs of life come from a loop that hangs", n-during)
		}
		mu.Lock()
		promised = time.Now()
		mu.Unlock()
		close(hang)
		close(stopped)
		synctest.Wait()
	})
}
