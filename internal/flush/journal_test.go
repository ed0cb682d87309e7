//go:build unix

package flush

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// errCrash is what a Sender panics with to end the process.
var errCrash = errors.New("killed")

// An idempotent application saves each id once. What becomes of a batch is random.
type idempotent struct {
	t      *testing.T
	random *rand.Rand
	calm   bool // it accepts everything
	saved  map[string][]hits.Count
}

func (a *idempotent) Send(_ context.Context, b *endpoint.Batch) error {
	if len(b.List) == 0 {
		return nil
	}
	b.Keeper.SetProgress(0, len(b.List))
	doubt := b.InDoubt
	outcome := a.random.IntN(6)
	if a.calm {
		outcome = 0
	}
	if outcome < 3 {
		if had, ok := a.saved[b.ID]; ok && !slices.Equal(had, b.List) {
			a.t.Errorf("the batch %s was %v and is %v", b.ID, had, b.List)
		}
		a.saved[b.ID] = b.List
	}
	switch outcome {
	case 0: // It is saved, and that is known.
		b.InDoubt = false
		b.First = len(b.List)
		b.Keeper.SetProgress(b.First, b.First)
		return nil
	case 1, 4: // It is saved or not, which is not known.
		b.InDoubt = true
		b.End = len(b.List)
		return errors.New("no answer")
	case 2, 5:
		panic(errCrash)
	default: // It is not saved, which is known unless it was in doubt.
		b.InDoubt = doubt
		return errors.New("no connection")
	}
}

// Whatever fails, and whenever the process is killed, an application that looks at
// ids saves each hit once.
func TestExactlyOnceAcrossCrashes(t *testing.T) {
	for seed := range uint64(10) {
		dir := t.TempDir()
		random := rand.New(rand.NewPCG(seed, 1))
		app := &idempotent{t: t, random: random, saved: map[string][]hits.Count{}}
		recorded := map[string]int64{}
		life := func() (store *hits.Store, died bool) {
			store, err := hits.Open(1<<30, dir, func(line string) { t.Errorf("told: %s", line) })
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := recover(); err != nil {
					if err != errCrash {
						panic(err)
					}
					died = true
				}
			}()
			f := &Flusher{Store: store, Endpoint: app, Stdout: logwriter.New(io.Discard), Stderr: logwriter.New(io.Discard)}
			for range 1 + random.IntN(8) {
				for range random.IntN(6) {
					key := fmt.Sprint("key", random.IntN(8))
					store.Record(key)
					recorded[key]++
				}
				f.Flush(t.Context())
			}
			if app.calm && store.Pending() != 0 {
				t.Errorf("seed %d: %d hits are left", seed, store.Pending())
			}
			return store, false
		}
		for range 12 {
			store, _ := life()
			store.Close()
		}
		app.calm = true
		store, _ := life()
		store.Close()
		got := map[string]int64{}
		for _, list := range app.saved {
			for _, count := range list {
				got[count.Key] += count.Hits
			}
		}
		if !maps.Equal(got, recorded) {
			t.Errorf("seed %d: saved %v, recorded %v", seed, got, recorded)
		}
	}
}

// A stop closes the journal and says once what it keeps: a key that is in doubt and
// was hit again is one key. The next process begins with that.
func TestStopWithAJournal(t *testing.T) {
	dir := t.TempDir()
	life := func(app *application) (f *Flusher, stderr *output) {
		f, _, _, stderr = newFlusher(app)
		store, err := hits.Open(1<<30, dir, func(line string) { t.Errorf("told: %s", line) })
		if err != nil {
			t.Fatal(err)
		}
		f.Store = store
		return f, stderr
	}
	stopped := make(chan struct{})
	close(stopped)
	stop := func(f *Flusher) {
		if got := f.Run(t.Context(), stopped, nil); got != (Rest{}) {
			t.Errorf("%+v are lost, want none", got)
		}
	}

	f, stderr := life(&application{err: errors.New("no answer"), doubt: true})
	f.Store.Record("a")
	f.Flush(t.Context())
	f.Store.Record("a")
	f.Store.Record("b")
	stop(f)
	expectOutput(t, stderr, "--- no answer\n--- no answer\n"+
		"pixel-ping: 3 hits of 2 keys were not delivered (1 hit may have been saved); the journal has them\n")

	app := &application{}
	f, stderr = life(app)
	stop(f)
	expectOutput(t, stderr, "pixel-ping: 3 hits of 2 keys recovered from the journal\n")
	app.expect(t, "a=2 b=1")

	f, stderr = life(nil)
	f.Store.Record("c")
	stop(f)
	expectOutput(t, stderr, "")
}
