package flush

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
)

// application is a Sender that keeps what it was sent. Each delivery lasts for
// latency, or until its context ends, and then ends with err.
type application struct {
	latency time.Duration
	err     error

	mu       sync.Mutex
	received []string // of each delivery, when it began, the counts
}

func (a *application) Send(ctx context.Context, counts []hits.Count) error {
	var all []string
	for _, count := range counts {
		all = append(all, fmt.Sprintf("%s=%d", count.Key, count.Hits))
	}
	a.mu.Lock()
	a.received = append(a.received, strings.Join(all, " "))
	a.mu.Unlock()
	select {
	case <-time.After(a.latency):
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *application) expect(t *testing.T, want ...string) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if got := fmt.Sprintf("%q", a.received); got != fmt.Sprintf("%q", want) {
		t.Errorf("received %s, want %q", got, want)
	}
	a.received = nil
}

func newFlusher(app *application, keys ...string) (*Flusher, *hits.Store, *strings.Builder, *strings.Builder) {
	store := hits.NewStore(1 << 30)
	for _, key := range keys {
		store.Record(key)
	}
	var stdout, stderr strings.Builder
	f := &Flusher{Store: store, Interval: time.Minute, Stdout: &stdout, Stderr: &stderr}
	if app != nil {
		f.Endpoint = app
	}
	return f, store, &stdout, &stderr
}

func expectHeld(t *testing.T, store *hits.Store, want map[string]int64) {
	t.Helper()
	got := make(map[string]int64)
	for key, n := range store.Take() {
		got[key] = *n
	}
	if !maps.Equal(got, want) {
		t.Errorf("the store holds %v, want %v", got, want)
	}
}

func expectOutput(t *testing.T, b *strings.Builder, want string) {
	t.Helper()
	if got := b.String(); got != want {
		t.Errorf("output:\n%s\nwant:\n%s", got, want)
	}
	b.Reset()
}

func TestDelivered(t *testing.T) {
	app := &application{}
	f, store, stdout, stderr := newFlusher(app, "b", "a", "b")
	f.Flush(t.Context())
	app.expect(t, "a=1 b=2")
	expectHeld(t, store, nil)
	expectOutput(t, stdout, "1:\ta\n2:\tb\n--- flushed ---\n")
	expectOutput(t, stderr, "")

	f.Flush(t.Context())
	app.expect(t, "")
	expectOutput(t, stdout, "--- flushed ---\n")
}

func TestFailedIsMergedBack(t *testing.T) {
	app := &application{err: errors.New("flush failed with code:500")}
	f, store, stdout, stderr := newFlusher(app, "a", "b", "a")
	f.Flush(t.Context())
	expectOutput(t, stdout, "2:\ta\n1:\tb\n")
	expectOutput(t, stderr, "--- flush failed with code:500\n")

	store.Record("a")
	app.err = nil
	f.Flush(t.Context())
	app.expect(t, "a=2 b=1", "a=3 b=1")
	expectHeld(t, store, nil)
}

func TestFailedIsDropped(t *testing.T) {
	app := &application{err: errors.New("flush failed with code:500")}
	f, store, _, stderr := newFlusher(app, "a")
	f.Discard = true
	f.Flush(t.Context())
	app.expect(t, "a=1")
	expectHeld(t, store, nil)
	expectOutput(t, stderr, "--- flush failed with code:500\n")
}

func TestWithoutEndpointCountsGrow(t *testing.T) {
	f, store, stdout, stderr := newFlusher(nil, "a")
	f.Flush(t.Context())
	store.Record("a")
	f.Flush(t.Context())
	expectOutput(t, stdout, "1:\ta\n2:\ta\n")
	expectOutput(t, stderr, "")
	expectHeld(t, store, map[string]int64{"a": 2})
}

func TestKeysDoNotForgeTheLog(t *testing.T) {
	app := &application{}
	for key, want := range map[string]string{
		"a\n9:\tb":          `a\u000a9:\u0009b`,
		"\x1b[2J\r\x7f\x00": `\u001b[2J\u000d\u007f\u0000`,
		"\u0085\u2028":      `\u0085\u2028`,
		`é "\ 😀`:            `é "\ 😀`,
	} {
		f, _, stdout, _ := newFlusher(app, key)
		f.Flush(t.Context())
		app.expect(t, key+"=1")
		expectOutput(t, stdout, "1:\t"+want+"\n--- flushed ---\n")
	}
}

// limited is an application that refuses requests of more than limit bytes of
// keys as too large, and those with a key in refuses with an error of its own.
type limited struct {
	limit    int
	refuses  map[string]error
	received map[string]int64
	sends    int
}

func (l *limited) Send(_ context.Context, counts []hits.Count) error {
	l.sends++
	size := 0
	for _, count := range counts {
		size += len(count.Key)
		if err := l.refuses[count.Key]; err != nil && len(counts) == 1 {
			return err
		}
	}
	if size > l.limit {
		return endpoint.ErrTooLarge
	}
	for _, count := range counts {
		l.received[count.Key] += count.Hits
	}
	return nil
}

func TestTooLargeIsHalved(t *testing.T) {
	for name, test := range map[string]struct {
		app     limited
		discard bool
		left    map[string]int64
		stderr  string
		sends   int
	}{
		"all of it in parts":       {app: limited{limit: 4}, sends: 3},
		"down to single keys":      {app: limited{limit: 2}, sends: 7},
		"one key alone too large":  {app: limited{limit: 2, refuses: map[string]error{"k2": endpoint.ErrTooLarge}}, left: map[string]int64{"k2": 1}, stderr: "--- the request is too large\n", sends: 7},
		"all keys too large":       {app: limited{limit: 1}, left: map[string]int64{"k1": 1, "k2": 1, "k3": 1, "k4": 1}, stderr: "--- the request is too large\n", sends: 7},
		"trouble on the way":       {app: limited{limit: 2, refuses: map[string]error{"k2": errors.New("flush failed with code:500")}}, left: map[string]int64{"k2": 1, "k3": 1, "k4": 1}, stderr: "--- flush failed with code:500\n", sends: 4},
		"trouble in a second half": {app: limited{limit: 2, refuses: map[string]error{"k1": endpoint.ErrTooLarge, "k2": errors.New("flush failed with code:503")}}, left: map[string]int64{"k1": 1, "k2": 1, "k3": 1, "k4": 1}, stderr: "--- flush failed with code:503\n", sends: 4},
		"a key alone that is cut":  {app: limited{limit: 2, refuses: map[string]error{"k2": endpoint.ErrCut}}, left: map[string]int64{"k2": 1}, stderr: "--- the connection was cut\n", sends: 7},
		"with discard":             {app: limited{limit: 2, refuses: map[string]error{"k2": endpoint.ErrTooLarge}}, discard: true, stderr: "--- the request is too large\n", sends: 7},
	} {
		t.Run(name, func(t *testing.T) {
			f, store, stdout, stderr := newFlusher(nil, "k1", "k2", "k3", "k4")
			test.app.received = make(map[string]int64)
			f.Endpoint, f.Discard = &test.app, test.discard
			f.Flush(t.Context())
			if test.app.sends != test.sends {
				t.Errorf("%d requests, want %d", test.app.sends, test.sends)
			}
			want := map[string]int64{"k1": 1, "k2": 1, "k3": 1, "k4": 1}
			for key := range want {
				if test.left[key] > 0 || test.discard && key == "k2" {
					delete(want, key)
				}
			}
			if !maps.Equal(test.app.received, want) {
				t.Errorf("received %v, want %v", test.app.received, want)
			}
			expectHeld(t, store, test.left)
			expectOutput(t, stderr, test.stderr)
			ending := ""
			if test.stderr == "" {
				ending = "--- flushed ---\n"
			}
			expectOutput(t, stdout, "1:\tk1\n1:\tk2\n1:\tk3\n1:\tk4\n"+ending)
		})
	}
}

func TestReasonsDoNotForgeTheLog(t *testing.T) {
	app := &application{err: errors.New("cannot connect to endpoint : x\n--- flushed ---\x1b")}
	f, _, _, stderr := newFlusher(app)
	f.Flush(t.Context())
	expectOutput(t, stderr, "--- cannot connect to endpoint : x\\u000a--- flushed ---\\u001b\n")
}

// An application that cuts every connection is not called for each key.
func TestEveryConnectionIsCut(t *testing.T) {
	var keys []string
	refuses := make(map[string]error)
	for i := range 100 {
		key := fmt.Sprintf("k%02d", i)
		keys, refuses[key] = append(keys, key), endpoint.ErrCut
	}
	app := &limited{limit: 3, refuses: refuses, received: make(map[string]int64)}
	f, store, _, stderr := newFlusher(nil, keys...)
	f.Endpoint = app
	f.Flush(t.Context())
	if app.sends > 30 {
		t.Errorf("%d requests, want 30 at the most", app.sends)
	}
	if got := len(store.Take()); got != 100 {
		t.Errorf("%d keys are held, want 100", got)
	}
	expectOutput(t, stderr, "--- the connection was cut\n")
}

// running starts Run in the bubble of a test. The function it returns stops it
// and waits for it.
func running(ctx context.Context, f *Flusher) (forced chan os.Signal, end func()) {
	forced = make(chan os.Signal, 1)
	stopped, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx, stopped, forced)
	}()
	return forced, func() {
		close(stopped)
		<-ended
	}
}

// pass lets time go by in a bubble, and what is to happen then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{latency: time.Second}
		f, store, _, _ := newFlusher(app, "a")
		_, end := running(t.Context(), f)
		pass(time.Minute - time.Millisecond)
		app.expect(t)
		pass(2 * time.Millisecond)
		app.expect(t, "a=1")

		// At a fixed rate, however long a flush takes, and with nothing to say too.
		pass(3 * time.Minute)
		app.expect(t, "", "", "")

		store.Record("b")
		end()
		app.expect(t, "b=1")
	})
}

func TestSignals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{latency: 10 * time.Second}
		f, store, stdout, _ := newFlusher(app, "a")
		forced, end := running(t.Context(), f)
		forced <- os.Interrupt
		synctest.Wait()
		app.expect(t, "a=1")

		// Two signals during the flush ask for one more after it.
		store.Record("b")
		for range 2 {
			select {
			case forced <- os.Interrupt:
			default:
			}
		}
		synctest.Wait()
		app.expect(t)
		pass(30 * time.Second)
		app.expect(t, "b=1")
		expectOutput(t, stdout, "Got SIGUSR2. Forcing a flush:\n1:\ta\n--- flushed ---\n"+
			"Got SIGUSR2. Forcing a flush:\n1:\tb\n--- flushed ---\n")
		end()
		app.expect(t)
	})
}

func TestFullStoreIsFlushedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{latency: time.Second}
		f, _, _, stderr := newFlusher(app)
		f.Store = hits.NewStore(300)
		_, end := running(t.Context(), f)
		for _, key := range []string{"a", "b", "c", "a", "d"} {
			f.Store.Record(key)
		}
		synctest.Wait()
		app.expect(t, "a=2 b=1")
		pass(time.Second)
		expectOutput(t, stderr, "pixel-ping: 2 hits of new keys were not counted, as there was no room for more keys (maxmemory)\n")

		// A stop during such a flush tells as well.
		for _, key := range []string{"a", "b", "c"} {
			f.Store.Record(key)
		}
		synctest.Wait()
		for _, key := range []string{"d", "e", "f"} {
			f.Store.Record(key)
		}
		end()
		app.expect(t, "a=1 b=1", "d=1 e=1")
		expectOutput(t, stderr, "pixel-ping: 2 hits of new keys were not counted, as there was no room for more keys (maxmemory)\n")
	})
}

// Hits that found no room are told of at a stop as well, when all that was held
// is delivered already.
func TestStopTellsOfHitsThatWereRefused(t *testing.T) {
	app := &application{}
	f, _, _, stderr := newFlusher(app)
	f.Store = hits.NewStore(1)
	f.Store.Record("a")
	stopped := make(chan struct{})
	close(stopped)
	f.Run(t.Context(), stopped, nil)
	app.expect(t)
	expectOutput(t, stderr, "pixel-ping: 1 hits of new keys were not counted, as there was no room for more keys (maxmemory)\n")
}

// The last block of the log is what was not delivered.
func TestStopLogsWhatIsLeft(t *testing.T) {
	for _, test := range []struct {
		refused []string
		discard bool
		log     string
	}{
		{nil, false, "--- flushed ---\n"},
		{[]string{"b"}, false, "Not delivered:\n1:\tb\n"},
		{[]string{"b"}, true, ""},
		{[]string{"a", "b", "c"}, false, ""},
	} {
		app := &limited{limit: 1, refuses: make(map[string]error), received: make(map[string]int64)}
		for _, key := range test.refused {
			app.refuses[key] = endpoint.ErrTooLarge
		}
		f, _, stdout, _ := newFlusher(nil, "a", "b", "c")
		f.Endpoint, f.Discard = app, test.discard
		stopped := make(chan struct{})
		close(stopped)
		f.Run(t.Context(), stopped, nil)
		expectOutput(t, stdout, "1:\ta\n1:\tb\n1:\tc\n"+test.log)
	}
}

func TestStopWaitsForARunningFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{latency: 5 * time.Second}
		f, store, _, _ := newFlusher(app, "a")
		forced, end := running(t.Context(), f)
		forced <- os.Interrupt
		synctest.Wait()
		store.Record("b")
		began := time.Now()
		end()
		app.expect(t, "a=1", "b=1")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the stop took %v, want 10s", took)
		}
		expectHeld(t, store, nil)
	})
}

func TestAbandonedStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{latency: time.Hour}
		f, store, stdout, stderr := newFlusher(app, "a")
		ctx, abandon := context.WithCancelCause(t.Context())
		forced, end := running(ctx, f)
		forced <- os.Interrupt
		synctest.Wait()
		store.Record("a")
		abandon(errors.New("it is over"))
		end()
		expectHeld(t, store, map[string]int64{"a": 2})
		expectOutput(t, stdout, "Got SIGUSR2. Forcing a flush:\n1:\ta\n2:\ta\n")
		expectOutput(t, stderr, "--- it is over\n--- it is over\n")
	})
}
