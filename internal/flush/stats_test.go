package flush

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/stats"
)

// A flush is delivered if everything in it was accepted. Hits are delivered if they
// were, even if the flush failed.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := new(application)
		f, store, _, _ := newFlusher(app, "a", "b", "b")
		expect := func(what string, want stats.Flushes) {
			t.Helper()
			if got := f.Stats(); got != want {
				t.Errorf("%s: got %+v, want %+v", what, got, want)
			}
		}
		expect("before the first flush", stats.Flushes{})
		f.Flush(t.Context())
		first := time.Now()
		expect("delivered", stats.Flushes{Delivered: 1, LastDelivery: first, LastFlush: first})
		pass(time.Minute)
		f.Flush(t.Context())
		empty := time.Now()
		expect("an empty one", stats.Flushes{Delivered: 2, LastDelivery: empty, LastFlush: empty})

		pass(time.Minute)
		app.err = errors.New("no")
		store.Record("a")
		f.Flush(t.Context())
		failed := time.Now()
		expect("failed", stats.Flushes{Delivered: 2, Failed: 1, LastDelivery: empty, LastFlush: failed})

		f.Endpoint = partial{"b", true}
		store.Record("b")
		f.Flush(t.Context())
		expect("a part", stats.Flushes{Delivered: 2, Failed: 2, LastDelivery: empty, LastFlush: failed})

		f.Endpoint, f.Discard = app, true
		f.Flush(t.Context())
		expect("dropped", stats.Flushes{Delivered: 2, Failed: 3, LastDelivery: empty, LastFlush: failed})
		f.Flush(t.Context())
		expect("an empty one", stats.Flushes{Delivered: 2, Failed: 4, LastDelivery: empty, LastFlush: failed})
		if got := store.Stats().DeliveredHits; got != 4 {
			t.Errorf("%d hits are delivered, want 4", got)
		}
	})
}

// Without an endpoint there is a last flush, but none that is delivered or fails.
func TestStatsWithoutEndpoint(t *testing.T) {
	f, _, _, _ := newFlusher(nil, "a")
	f.Flush(t.Context())
	got := f.Stats()
	if got.LastFlush.IsZero() {
		t.Error("there was no flush")
	}
	if got.LastFlush = (time.Time{}); got != (stats.Flushes{}) {
		t.Errorf("got %+v", got)
	}
}

// Hits are in doubt until the application has accepted their batch. The flush that
// delivers them delivers the hits since then, too, and counts once.
func TestStatsOfABatchInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{err: errors.New("no"), doubt: true}
		f, store, _, _ := newFlusher(app, "a", "a")
		f.Flush(t.Context())
		failed := time.Now()
		if got, want := f.Stats(), (stats.Flushes{Failed: 1, InDoubt: 2, LastFlush: failed}); got != want {
			t.Errorf("in doubt: got %+v, want %+v", got, want)
		}
		store.Record("b")
		app.err = nil
		f.Flush(t.Context())
		app.expect(t, "a=2", "a=2", "b=1")
		settled := time.Now()
		want := stats.Flushes{Delivered: 1, Failed: 1, LastDelivery: settled, LastFlush: settled}
		if got := f.Stats(); got != want {
			t.Errorf("settled: got %+v, want %+v", got, want)
		}
	})
}

// Hits in doubt are pending, also while the next batch is under way.
func TestStatsOfDoubtThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{err: errors.New("no"), doubt: true}
		f, store, _, _ := newFlusher(app, "a", "a")
		f.Flush(t.Context())
		store.Record("b")
		app.err, app.latency = nil, time.Minute
		go f.Flush(t.Context())
		pass(90 * time.Second) // The batch in doubt is accepted after one minute, and the next one after two.
		if got := f.Stats().InDoubt; got != 0 || store.Stats().Pending != 1 {
			t.Errorf("%d hits are in doubt, and %d pending, want 0 and 1", got, store.Stats().Pending)
		}
		pass(time.Minute)
	})
}

// A slowly is an application that takes a minute for each key, in a POST of its own.
type slowly struct{}

func (slowly) Send(_ context.Context, b *hits.Batch, _ *int, _ func([]hits.Count)) endpoint.Report {
	for !b.Done() {
		<-time.After(time.Minute)
		b.Begin(b.First, b.First+1)
		b.Accepted()
	}
	return endpoint.Report{}
}

func (slowly) Ping(context.Context) endpoint.Report { return endpoint.Report{} }

// Hits of a part that is accepted count as delivered at once, and not at the end of the flush.
func TestStatsOfAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, store, _, _ := newFlusher(nil, "a", "b", "c")
		f.Endpoint = slowly{}
		go f.Flush(t.Context())
		for minute := range int64(3) {
			pass(time.Minute + 1)
			if got := store.Stats(); got.DeliveredHits != minute+1 || got.Pending != 2-minute {
				t.Errorf("after %d minutes: counted %+v", minute+1, got)
			}
		}
	})
}

// While a delivery is under way, Stats returns at once.
func TestStatsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, _ := newFlusher(&application{latency: time.Hour}, "a")
		go f.Flush(t.Context())
		synctest.Wait()
		began := time.Now()
		if got := f.Stats(); got != (stats.Flushes{}) {
			t.Errorf("got %+v during the first flush", got)
		}
		if got := f.Store.Stats(); got != (stats.Hits{Recorded: 1, Pending: 1, Keys: 1}) {
			t.Errorf("got %+v of the store during a flush", got)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("that took %v", took)
		}
	})
}
