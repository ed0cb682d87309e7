package flush

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// application is a Sender that keeps what it was sent. Each Send takes latency,
// or less if its context ends, and returns err.
type application struct {
	latency time.Duration
	err     error
	doubt   bool // after err, the batch is in doubt
	answers bool // err is an answer
	vain    bool // err comes after a search that has found nothing

	mu       sync.Mutex
	received []string // of each delivery, when it began, the counts
}

func (a *application) Send(ctx context.Context, b *hits.Batch, _ *int, _ func([]hits.Count)) endpoint.Report {
	err := a.receive(ctx, b.List)
	doubt := b.Doubt || ctx.Err() == nil && a.doubt
	switch b.Begin(0, len(b.List)); {
	case err == nil:
		b.Accepted()
	case doubt:
		b.Doubt = true
	default:
		b.Begin(0, 0)
	}
	return endpoint.Report{Err: err, Answered: a.answers, Vain: err != nil && a.vain}
}

func (a *application) Ping(ctx context.Context) endpoint.Report {
	return endpoint.Report{Err: a.receive(ctx, nil)}
}

// receive waits for the latency, and returns the error of a delivery of list.
func (a *application) receive(ctx context.Context, list []hits.Count) error {
	a.mu.Lock()
	a.received = append(a.received, texts(list))
	a.mu.Unlock()
	select {
	case <-time.After(a.latency):
		return a.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// texts returns a list as "a=1 b=2".
func texts(list []hits.Count) string {
	var all []string
	for _, count := range list {
		all = append(all, fmt.Sprintf("%s=%d", count.Key, count.Hits))
	}
	return strings.Join(all, " ")
}

// count returns how many deliveries have begun since the last expect.
func (a *application) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.received)
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

// output is what a Flusher prints.
type output struct {
	strings.Builder
	w *logwriter.Writer
}

func newOutput() *output {
	o := new(output)
	o.w = logwriter.New(&o.Builder)
	return o
}

// newFlusher returns a Flusher whose Store holds keys, and its outputs.
func newFlusher(app *application, keys ...string) (f *Flusher, store *hits.Store, stdout, stderr *output) {
	store = hits.NewStore(1 << 30)
	for _, key := range keys {
		store.Record(key)
	}
	stdout, stderr = newOutput(), newOutput()
	f = &Flusher{Store: store, Interval: time.Minute, Stdout: stdout.w, Stderr: stderr.w}
	if app != nil {
		f.Endpoint = app
	}
	return f, store, stdout, stderr
}

func expectHeld(t *testing.T, store *hits.Store, want string) {
	t.Helper()
	if got := texts(store.List()); got != want {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

func expectOutput(t *testing.T, o *output, want string) {
	t.Helper()
	o.w.Wait(time.Minute)
	if got := o.String(); got != want {
		t.Errorf("output:\n%s\nwant:\n%s", got, want)
	}
	o.Reset()
}

func TestDelivered(t *testing.T) {
	app := &application{}
	f, store, stdout, stderr := newFlusher(app, "b", "a", "b")
	f.Flush(t.Context())
	app.expect(t, "a=1 b=2")
	expectHeld(t, store, "")
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
	expectHeld(t, store, "")
}

func TestFailedIsDropped(t *testing.T) {
	app := &application{err: errors.New("flush failed with code:500")}
	f, store, _, stderr := newFlusher(app, "a")
	f.Discard = true
	f.Flush(t.Context())
	app.expect(t, "a=1")
	expectHeld(t, store, "")
	expectOutput(t, stderr, "--- flush failed with code:500\n")
}

func TestWithoutEndpointCountsGrow(t *testing.T) {
	f, store, stdout, stderr := newFlusher(nil, "a")
	f.Flush(t.Context())
	store.Record("a")
	f.Flush(t.Context())
	expectOutput(t, stdout, "1:\ta\n2:\ta\n")
	expectOutput(t, stderr, "")
	expectHeld(t, store, "a=2")
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

// partial is an application that accepts all but the keys in refuses. It sets them aside, or fails.
type partial struct {
	refuses string
	fails   bool
}

func (p partial) Send(_ context.Context, b *hits.Batch, _ *int, setAside func([]hits.Count)) (r endpoint.Report) {
	for position := range b.List {
		b.Begin(position, position+1)
		switch part := b.Part(); {
		case !strings.Contains(p.refuses, part[0].Key):
			b.Accepted()
		case !p.fails && setAside != nil:
			setAside(part)
			b.Finish(position + 1)
		default:
			b.Begin(position, position)
			return endpoint.Report{Err: errors.New("refused")}
		}
	}
	return endpoint.Report{}
}

func (partial) Ping(context.Context) endpoint.Report { return endpoint.Report{} }

// What was accepted is not merged back with what was not.
func TestPartIsAccepted(t *testing.T) {
	for _, test := range []struct {
		refuses string
		discard bool
		held    string
	}{{"b", false, "b=2 c=1"}, {"ab", false, "a=1 b=2 c=1"}, {"b", true, ""}} {
		f, store, stdout, stderr := newFlusher(nil, "a", "b", "b", "c")
		f.Endpoint, f.Discard = partial{test.refuses, true}, test.discard
		f.Flush(t.Context())
		expectHeld(t, store, test.held)
		expectOutput(t, stdout, "1:\ta\n2:\tb\n1:\tc\n")
		expectOutput(t, stderr, "--- refused\n")
	}
}

const setAsideText = "pixel-ping: the application refuses 2 hits for what the keys are; they are set aside\n"

// Keys that are set aside are in the log before they are done with. They are no failure.
func TestSetAside(t *testing.T) {
	f, store, stdout, stderr := newFlusher(nil, "a", "b", "b", "c")
	f.Endpoint = partial{refuses: "b"}
	f.Flush(t.Context())
	expectHeld(t, store, "")
	expectOutput(t, stdout, "1:\ta\n2:\tb\n1:\tc\nRefused by the application:\n2:\tb\npixel-ping: 2 hits of 1 key set aside\n--- flushed ---\n")
	expectOutput(t, stderr, setAsideText)
	if got := store.Stats(); got.Aside != 2 || got.Pending != 0 {
		t.Errorf("counted %+v", got)
	}
	if got := f.Stats(); got.Delivered != 1 || store.Stats().DeliveredHits != 2 || got.LastDelivery.IsZero() {
		t.Errorf("counted %+v", got)
	}

	// In a newer batch, they are set aside without a question.
	f.Endpoint = partial{refuses: "b", fails: true}
	for _, key := range []string{"b", "b", "c"} {
		store.Record(key)
	}
	f.Flush(t.Context())
	expectOutput(t, stdout, "Refused by the application:\n2:\tb\npixel-ping: 2 hits of 1 key set aside\n1:\tc\n--- flushed ---\n")
	expectOutput(t, stderr, setAsideText)
}

// Hits for which there is no room among those that are set aside are dropped, and not counted as delivered.
func TestDropped(t *testing.T) {
	f, _, _, stderr := newFlusher(nil)
	f.Store, f.Endpoint = hits.NewStore(400), partial{refuses: "b"}
	for _, key := range []string{"a", "b", "b"} {
		f.Store.Record(key)
	}
	f.Flush(t.Context())
	expectOutput(t, stderr, setAsideText+
		"pixel-ping: 2 hits of them dropped, as there is no room for more keys that are set aside (maxmemory)\n")
	if got := f.Store.Stats(); got.Dropped != 2 || got.Aside != 0 || got.DeliveredHits != 1 {
		t.Errorf("counted %+v", got)
	}
}

// At a stop, keys that are set aside are sent once more. That they are refused is no failure.
func TestStopWithKeysSetAside(t *testing.T) {
	stopped := make(chan struct{})
	close(stopped)
	for _, test := range []struct {
		app            Sender
		stdout, stderr string
		delivered      int64
	}{
		{partial{refuses: "b", fails: true}, "2:\tb\n",
			"pixel-ping: refused by the application: 2 hits of 1 key were not delivered; the log has them\n", 1},
		{&application{}, "2:\tb\n", "", 3},
		{&application{err: errors.New("no answer"), doubt: true}, "2:\tb\n",
			"pixel-ping: refused by the application: 2 hits of 1 key were not delivered (2 hits may have been saved); " +
				"the log has them\n", 1},
	} {
		f, store, stdout, stderr := newFlusher(nil, "a", "b", "b")
		f.Endpoint = partial{refuses: "b"}
		f.Flush(t.Context())
		stdout.w.Wait(time.Minute)
		stdout.Reset()
		expectOutput(t, stderr, setAsideText)
		f.Endpoint = test.app
		if lost := f.Run(t.Context(), stopped, nil); lost != "" {
			t.Errorf("lost: %s", lost)
		}
		expectOutput(t, stdout, test.stdout)
		expectOutput(t, stderr, test.stderr)
		if got := store.Stats().DeliveredHits; got != test.delivered {
			t.Errorf("%d hits are delivered, want %d", got, test.delivered)
		}
	}
}

// asking is an application that accepts all but the key b, which it refuses for what it is. In each POST there is one
// key. After b was set aside, it calls look.
type asking struct {
	look  func()
	posts []string
}

func (a *asking) Send(_ context.Context, b *hits.Batch, _ *int, setAside func([]hits.Count)) (r endpoint.Report) {
	for position, count := range b.List {
		a.posts = append(a.posts, count.Key)
		if b.Begin(position, position+1); count.Key != "b" {
			b.Accepted()
			continue
		}
		if setAside == nil {
			return endpoint.Report{Err: errors.New("refused")}
		}
		setAside(b.Part())
		b.Finish(position + 1)
		a.look()
	}
	return endpoint.Report{}
}

func (a *asking) Ping(context.Context) endpoint.Report { return endpoint.Report{} }

// Before a key that is set aside counts as done with, its line is written, however slowly the log is.
func TestSetAsideIsLoggedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _, _ := newFlusher(nil, "a", "b", "c")
		var mu sync.Mutex
		var text strings.Builder
		f.Stdout = logwriter.New(writerFunc(func(p []byte) (int, error) {
			<-time.After(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			return text.Write(p)
		}))
		f.Endpoint = &asking{look: func() {
			mu.Lock()
			defer mu.Unlock()
			if !strings.HasSuffix(text.String(), "Refused by the application:\n1:\tb\npixel-ping: 1 hit of 1 key set aside\n") {
				t.Errorf("the log has only %q", text.String())
			}
		}}
		f.Flush(t.Context())
		f.Stdout.Wait(time.Minute)
	})
}

// After an hour, the next flush tries keys that were set aside again, with the others. At a stop, they are sent once,
// after the rest.
func TestKeysAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, store, _, stderr := newFlusher(nil, "a", "b")
		app := &asking{look: func() {}}
		f.Endpoint = app
		f.Flush(t.Context())
		<-time.After(time.Hour - 1)
		store.Record("b")
		f.Flush(t.Context())
		<-time.After(1)
		store.Record("c")
		f.Flush(t.Context())
		store.Record("d")
		stopped := make(chan struct{})
		close(stopped)
		f.Stderr.Wait(time.Minute)
		stderr.Reset()
		f.Run(t.Context(), stopped, nil)
		expectOutput(t, stderr,
			"pixel-ping: refused by the application: 2 hits of 1 key were not delivered; the log has them\n")
		if got, want := strings.Join(app.posts, " "), "a b b c d b"; got != want {
			t.Errorf("the POSTs have %s, want %s", got, want)
		}
		f.Stdout.Wait(time.Minute)
	})
}

// A hint is given if the application refuses even an empty object.
func TestReport(t *testing.T) {
	const about = "config.json: "
	f, _, _, stderr := newFlusher(nil, "a")
	f.About = about
	f.Endpoint = reporting(endpoint.Report{Err: errors.New("flush failed with code:403"), Forbidden: true, Doubled: true})
	f.Flush(t.Context())
	expectOutput(t, stderr, "--- flush failed with code:403\n"+
		"pixel-ping: config.json: the application refuses the request itself: \"secret\", or the user and password in "+
		"\"endpoint\", may differ from the application's\n"+
		"pixel-ping: some hits may be counted twice: the application may have saved them before its answer was lost, "+
		"and they are sent again in other parts\n")
}

// reporting is a Sender that does nothing but report.
type reporting endpoint.Report

func (r reporting) Send(context.Context, *hits.Batch, *int, func([]hits.Count)) endpoint.Report {
	return endpoint.Report(r)
}

func (r reporting) Ping(context.Context) endpoint.Report { return endpoint.Report(r) }

// hanging is a Sender that waits until its channel is closed, and accepts.
type hanging chan bool

func (h hanging) Send(_ context.Context, b *hits.Batch, _ *int, _ func([]hits.Count)) endpoint.Report {
	<-h
	b.Finish(len(b.List))
	return endpoint.Report{}
}

func (h hanging) Ping(context.Context) endpoint.Report { <-h; return endpoint.Report{} }

func TestReasonsDoNotForgeTheLog(t *testing.T) {
	app := &application{err: errors.New("cannot connect to endpoint : x\n--- flushed ---\x1b")}
	f, _, _, stderr := newFlusher(app)
	f.Flush(t.Context())
	expectOutput(t, stderr, "--- cannot connect to endpoint : x\\u000a--- flushed ---\\u001b\n")
}

// running starts Run. The function end stops Run and waits until it returns.
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

// pass waits, in a bubble, until d has passed and every goroutine is blocked.
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

		// The rate is fixed, however long a flush takes. Empty flushes are sent.
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

const noRoom = "as there was no room for more keys (maxmemory)\n"

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
		expectOutput(t, stderr, "pixel-ping: 2 hits of new keys were not counted, "+noRoom)

		// A stop during such a flush reports refused hits, too.
		for _, key := range []string{"a", "b", "c"} {
			f.Store.Record(key)
		}
		synctest.Wait()
		for _, key := range []string{"d", "e", "f"} {
			f.Store.Record(key)
		}
		end()
		app.expect(t, "a=1 b=1", "d=1 e=1")
		expectOutput(t, stderr, "pixel-ping: 2 hits of new keys were not counted, "+noRoom)
	})
}

// A stop reports refused hits even if there is nothing left to deliver.
func TestStopReportsRefusedHits(t *testing.T) {
	app := &application{}
	f, _, _, stderr := newFlusher(app)
	f.Store = hits.NewStore(1)
	f.Store.Record("a")
	stopped := make(chan struct{})
	close(stopped)
	f.Run(t.Context(), stopped, nil)
	app.expect(t)
	expectOutput(t, stderr, "pixel-ping: 1 hit of a new key was not counted, "+noRoom)
}

// The last block of the log is what the stop could not deliver.
func TestStopLogsWhatIsLeft(t *testing.T) {
	for _, test := range []struct {
		refuses string
		discard bool
		log     string
	}{
		{"", false, "--- flushed ---\n"},
		{"c", false, "Not delivered:\n1:\tc\n"},
		{"c", true, ""},
		{"abc", false, ""},
	} {
		f, _, stdout, _ := newFlusher(nil, "a", "b", "c")
		f.Endpoint, f.Discard = partial{test.refuses, true}, test.discard
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
		expectHeld(t, store, "")
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
		expectHeld(t, store, "a=2")
		expectOutput(t, stdout, "Got SIGUSR2. Forcing a flush:\n1:\ta\n2:\ta\n")
		expectOutput(t, stderr, "--- it is over\n--- it is over\n")
	})
}

// slowReader is a log that is read at a rate.
type slowReader struct {
	bytesPerSecond int
	text           strings.Builder
}

func (r *slowReader) Write(p []byte) (int, error) {
	<-time.After(time.Duration(len(p)) * time.Second / time.Duration(r.bytesPerSecond))
	return r.text.Write(p)
}

// manyKeys returns n keys of 8 bytes, whose lines have 12.
func manyKeys(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%08d", i))
	}
	return keys
}

// No flush waits for a slow reader. The log has one batch whole, "--- flushed ---"
// after it, and one line in the place of each batch that there was no time for.
func TestFlushWithASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{}
		f, store, _, _ := newFlusher(app, manyKeys(1000)...)
		reader := &slowReader{bytesPerSecond: 4000}
		f.Stdout = logwriter.New(reader)
		began := time.Now()
		f.Flush(t.Context())
		store.Record("a")
		store.Record("b")
		f.Flush(t.Context())
		if took := time.Since(began); took > 2*logDelay {
			t.Errorf("two flushes took %v, want %v at the most", took, 2*logDelay)
		}
		if len(app.received) != 2 || app.received[1] != "a=1 b=1" {
			t.Errorf("%d batches are received, want 2", len(app.received))
		}
		f.Stdout.Wait(time.Hour)
		var want strings.Builder
		for _, key := range manyKeys(1000) {
			fmt.Fprintf(&want, "1:\t%s\n", key)
		}
		want.WriteString("--- flushed ---\n" +
			"pixel-ping: 2 lines left out of the log here, which is still busy with an earlier flush\n" +
			"--- flushed ---\n")
		if got := reader.text.String(); got != want.String() {
			t.Errorf("the log is %d bytes long and ends %q", len(got), got[max(0, len(got)-200):])
		}
	})
}

// A reader that does not read at all delays no flush, either.
func TestFlushWithAReaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{}
		f, store, _, _ := newFlusher(app, "a")
		released := make(chan bool)
		f.Stdout = logwriter.New(writerFunc(func(p []byte) (int, error) { <-released; return len(p), nil }))
		forced, end := running(t.Context(), f)
		for range 10 {
			store.Record("b")
			began := time.Now()
			forced <- os.Interrupt
			for app.count() == 0 {
				pass(time.Millisecond)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("a flush took %v", took)
			}
			app.mu.Lock()
			app.received = nil
			app.mu.Unlock()
			pass(time.Second)
		}
		close(released)
		end()
	})
}

// At a stop, a slow reader keeps nothing from being delivered. Run returns when
// the log is written, or when another chunk would end after the deadline of the log.
func TestStopWithASlowReader(t *testing.T) {
	for _, test := range []struct {
		bytesPerSecond int
		took           time.Duration
	}{{400_000, 3 * time.Second}, {50_000, 8450 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			app := &application{latency: time.Second}
			f, store, _, _ := newFlusher(app, manyKeys(100_000)...)
			reader := &slowReader{bytesPerSecond: test.bytesPerSecond}
			f.Stdout = logwriter.New(reader)
			began := time.Now()
			f.Stdout.SetDeadline(began.Add(8500 * time.Millisecond))
			stopped := make(chan struct{})
			close(stopped)
			if lost := f.Run(t.Context(), stopped, nil); lost != "" {
				t.Errorf("lost: %s", lost)
			}
			if took := time.Since(began).Round(10 * time.Millisecond); took != test.took {
				t.Errorf("the stop took %v, want %v", took, test.took)
			}
			f.Stdout.Wait(logwriter.Grace)
			if log := reader.text.String(); !strings.HasSuffix(log, "\n") || strings.Count(log, "\n")*12 > len(log)+12 {
				t.Errorf("the log ends %q", log[len(log)-20:])
			}
			if len(app.received) != 1 || store.Stats().Pending != 0 {
				t.Errorf("%d batches are received and %d hits left", len(app.received), store.Stats().Pending)
			}
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Run says that the log has what is left only if the log has taken all of it.
func TestStopKnowsWhetherTheLogHasWhatIsLeft(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	const logged = "1000 hits of 1000 keys were not delivered; the log has them"
	const lost = "1000 hits of 1000 keys were not delivered; the log does not have them"
	room := 0
	for name, test := range map[string]struct {
		stdout io.Writer
		app    Sender
		want   string
	}{
		"a reader":           {io.Discard, &application{err: errors.New("down")}, logged},
		"a slow reader":      {&slowReader{bytesPerSecond: 4000}, &application{err: errors.New("down")}, logged},
		"a reader too slow":  {&slowReader{bytesPerSecond: 2900}, &application{err: errors.New("down")}, lost},
		"all is delivered":   {null, &application{}, ""},
		"the null device":    {null, &application{err: errors.New("down")}, lost},
		"a part, not logged": {null, partial{"00000999", true}, "1 hit of 1 key was not delivered; the log does not have them"},
		"no reader": {writerFunc(func([]byte) (int, error) { return 0, syscall.EPIPE }),
			&application{err: errors.New("down")}, lost},
		"a disk that fills": {writerFunc(func(p []byte) (int, error) {
			if room += len(p); room > 9000 {
				return 0, syscall.ENOSPC
			}
			return len(p), nil
		}), &application{err: errors.New("down")}, lost},
		"a reader that hangs": {writerFunc(func([]byte) (int, error) { <-time.After(time.Hour); return 0, io.EOF }),
			&application{err: errors.New("down")}, lost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, _, _, _ := newFlusher(nil, manyKeys(1000)...)
				f.Endpoint, f.Stdout = test.app, logwriter.New(test.stdout)
				began := time.Now()
				f.Stdout.SetDeadline(began.Add(4 * time.Second))
				stopped := make(chan struct{})
				close(stopped)
				if got := f.Run(t.Context(), stopped, nil); got != test.want {
					t.Errorf("lost: %q, want %q", got, test.want)
				}
				if took := time.Since(began); took > 4100*time.Millisecond { // a last text may wait for 100 ms
					t.Errorf("took %v, want at most 4.1s", took)
				}
				pass(10 * time.Hour)
			})
		})
	}
}

// What is left is logged at the end of a stop if the log was busy before.
func TestStopWhileTheLogIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{err: errors.New("down")}
		f, store, _, _ := newFlusher(app, manyKeys(1000)...)
		reader := &slowReader{bytesPerSecond: 11_000}
		f.Stdout = logwriter.New(reader)
		f.Flush(t.Context())
		store.Seal(nil, false)
		store.Forget(store.Batch(0))
		store.Record("a")
		stopped := make(chan struct{})
		close(stopped)
		if got, want := f.Run(t.Context(), stopped, nil), "1 hit of 1 key was not delivered; the log has them"; got != want {
			t.Errorf("lost: %q, want %q", got, want)
		}
		const want = "1:\t00000999\n" +
			"pixel-ping: 1 line left out of the log here, which is still busy with an earlier flush\n" +
			"Not delivered:\n1:\ta\n"
		if got := reader.text.String(); !strings.HasSuffix(got, want) {
			t.Errorf("the log ends %q", got[max(0, len(got)-200):])
		}
	})
}

// There is no time left for the log at a stop, or only for what was tried again. The log does not have what is lost,
// and that is said.
func TestStopWithoutTimeForTheLog(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f, store, _, _ := newFlusher(&application{err: errors.New("no answer"), doubt: true, latency: time.Second}, "a")
			want := "1 hit of 1 key was not delivered (1 hit may have been saved); the log does not have them"
			if before {
				f.Flush(t.Context())
				store.Record("b")
				want = "2 hits of 2 keys were not delivered (1 hit may have been saved); the log does not have them"
				f.Stdout.SetDeadline(time.Now().Add(time.Second / 2))
			} else {
				f.Stdout.SetDeadline(time.Now())
			}
			stopped := make(chan struct{})
			close(stopped)
			if got := f.Run(t.Context(), stopped, nil); got != want {
				t.Errorf("lost: %q, want %q", got, want)
			}
		})
	}
}

// While a store is full all the time, there is one flush a second.
func TestFullStoreIsFlushedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := &application{}
		f, _, _, _ := newFlusher(app)
		f.Store = hits.NewStore(300)
		_, end := running(t.Context(), f)
		for i := range 10_000 {
			f.Store.Record(fmt.Sprint(i))
			pass(time.Millisecond)
		}
		if got := len(app.received); got < 9 || got > 11 {
			t.Errorf("%d flushes in 10 seconds, want 10", got)
		}
		end()
	})
}

// A batch in doubt is sent again first, as it is, and logged again. When the
// application accepts it, the same flush goes on with the counts since then.
func TestBatchInDoubt(t *testing.T) {
	app := &application{err: errors.New("no answer"), doubt: true}
	f, store, stdout, stderr := newFlusher(app, "a")
	f.Flush(t.Context())
	store.Record("a")
	store.Record("b")
	f.Flush(t.Context())
	app.expect(t, "a=1", "a=1")
	expectOutput(t, stdout, "1:\ta\n1:\ta\n")
	expectOutput(t, stderr, "--- no answer\n--- no answer\n")
	if got := store.Stats().Pending; got != 3 {
		t.Errorf("%d hits are pending, want 3", got)
	}

	app.err = nil
	f.Flush(t.Context())
	app.expect(t, "a=1", "a=1 b=1")
	expectOutput(t, stdout, "1:\ta\n--- flushed ---\n1:\ta\n1:\tb\n--- flushed ---\n")
	if got := store.Stats().Pending; got != 0 {
		t.Errorf("%d hits are pending, want none", got)
	}

	// Nothing since then: no empty flush follows.
	app.err = errors.New("no answer")
	store.Record("c")
	f.Flush(t.Context())
	app.err = nil
	f.Flush(t.Context())
	app.expect(t, "c=1", "c=1")
}

func TestDiscardDropsABatchInDoubt(t *testing.T) {
	app := &application{err: errors.New("no answer"), doubt: true}
	f, store, _, _ := newFlusher(app, "a")
	f.Discard = true
	f.Flush(t.Context())
	store.Record("b")
	f.Flush(t.Context())
	app.expect(t, "a=1", "b=1")
	if got := store.Stats().Pending; got != 0 {
		t.Errorf("%d hits are pending, want none", got)
	}
}

// At a stop, a batch in doubt is tried once more. What the application may have
// saved is named, and the last lines of the log are all that was not delivered.
func TestStopWithABatchInDoubt(t *testing.T) {
	for _, test := range []struct {
		accepts   bool
		abandoned bool
		lost      string
		pending   int64
		sends     []string
		log       string
	}{
		{true, false, "", 0, []string{"a=1", "a=1", "a=1 b=1"},
			"1:\ta\n1:\ta\n--- flushed ---\n1:\ta\n1:\tb\n--- flushed ---\n"},
		{false, false, "3 hits of 2 keys were not delivered (1 hit may have been saved); the log has them", 3, []string{"a=1", "a=1"},
			"1:\ta\n1:\ta\nNot delivered:\n2:\ta\n1:\tb\n"},
		{false, true, "3 hits of 2 keys were not delivered (1 hit may have been saved); the log has them", 3, []string{"a=1", "a=1"},
			"1:\ta\n1:\ta\nNot delivered:\n2:\ta\n1:\tb\n"},
	} {
		app := &application{err: errors.New("no answer"), doubt: true}
		f, store, stdout, _ := newFlusher(app, "a")
		f.Flush(t.Context())
		store.Record("a")
		store.Record("b")
		if test.accepts {
			app.err = nil
		}
		ctx, abandon := context.WithCancel(t.Context())
		defer abandon()
		if test.abandoned {
			abandon()
		}
		stopped := make(chan struct{})
		close(stopped)
		if got := f.Run(ctx, stopped, nil); got != test.lost {
			t.Errorf("lost: %q, want %q", got, test.lost)
		}
		app.expect(t, test.sends...)
		expectOutput(t, stdout, test.log)
		if got := store.Stats().Pending; got != test.pending {
			t.Errorf("%d hits are pending, want %d", got, test.pending)
		}
	}
}

func TestUndelivered(t *testing.T) {
	for want, got := range map[string]string{
		"1 hit of 1 key was not delivered; the log has them": undelivered([]hits.Count{{Key: "a", Hits: 1}}, 0, "log has"),
		"3 hits of 2 keys were not delivered (1 hit may have been saved); the journal has them": undelivered(
			[]hits.Count{{Key: "a", Hits: 1}, {Key: "b", Hits: 2}}, 1, "journal has"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// A batch that is in doubt and is answered does not hold back newer counts. Two batches are out at most, and each
// flush tries both, the older one first.
func TestAnsweredBatch(t *testing.T) {
	app := &application{err: errors.New("no answer"), doubt: true}
	f, store, _, _ := newFlusher(app, "a")
	f.Flush(t.Context())
	store.Record("b")
	f.Flush(t.Context())
	app.expect(t, "a=1", "a=1")

	app.answers, app.err = true, errors.New("flush failed with code:409")
	f.Flush(t.Context())
	app.expect(t, "a=1", "b=1")
	store.Record("c")
	f.Flush(t.Context())
	app.expect(t, "a=1", "b=1")
	app.err = nil
	f.Flush(t.Context())
	app.expect(t, "a=1", "b=1", "c=1")
	if got := store.Stats().Pending; got != 0 {
		t.Errorf("%d hits are left", got)
	}
}

// A second batch that is refused, and is not in doubt, is merged back.
func TestSecondBatchIsRefused(t *testing.T) {
	f, store, _, _ := newFlusher(nil, "a")
	f.Endpoint = &application{err: errors.New("no answer"), doubt: true}
	f.Flush(t.Context())
	app := &application{err: errors.New("flush failed with code:409"), answers: true}
	f.Endpoint = app
	for range 2 {
		store.Record("b")
		f.Flush(t.Context())
	}
	app.expect(t, "a=1", "b=1", "a=1", "b=2")
}

// A batch that was in doubt is refused, and is in doubt no more. It is merged back, and not sealed again in that flush.
func TestBatchIsInDoubtNoMore(t *testing.T) {
	app := &application{err: errors.New("no answer"), doubt: true}
	f, store, _, _ := newFlusher(app, "a")
	f.Flush(t.Context())
	store.Batch(0).Begin(0, 0)
	f.Endpoint = reporting{Err: errors.New("refused"), Answered: true}
	store.Record("b")
	f.Flush(t.Context())
	if store.Batch(0) != nil {
		t.Error("a batch is out")
	}
	expectHeld(t, store, "a=1 b=1")
}

// After a search that has found nothing, four batches are out at most, until one is delivered. Then it is two again.
func TestFourBatchesAreOut(t *testing.T) {
	refused := errors.New("flush failed with code:403")
	app := &application{err: refused, doubt: true, answers: true, vain: true}
	f, store, _, _ := newFlusher(app)
	flush := func(keys ...string) {
		for _, key := range keys {
			store.Record(key)
			app.received = nil
			f.Flush(t.Context())
		}
	}
	flush("a", "b", "c", "d", "e")
	app.expect(t, "a=1", "b=1", "c=1", "d=1")
	app.err = nil
	flush("f")
	app.expect(t, "a=1", "b=1", "c=1", "d=1", "e=1 f=1")
	app.err, app.vain = refused, false
	flush("g", "h", "i")
	app.expect(t, "g=1", "h=1")
}

// At a stop without a journal, what was counted last is sent, however many batches are out.
func TestStopSendsTheFifthBatch(t *testing.T) {
	app := &application{err: errors.New("flush failed with code:409"), doubt: true, answers: true, vain: true}
	f, store, _, _ := newFlusher(app)
	for _, key := range []string{"a", "b", "c", "d"} {
		store.Record(key)
		f.Flush(t.Context())
	}
	store.Record("e")
	app.received = nil
	stopped := make(chan struct{})
	close(stopped)
	f.Run(t.Context(), stopped, nil)
	app.expect(t, "a=1", "b=1", "c=1", "d=1", "e=1")
}

// failingOnce leaves its first batch in doubt, with err, and then does what partial does.
type failingOnce struct {
	partial
	err error
}

func (f *failingOnce) Send(ctx context.Context, b *hits.Batch, n *int, setAside func([]hits.Count)) endpoint.Report {
	if f.err != nil {
		b.Begin(0, len(b.List))
		b.Doubt = true
		err := f.err
		f.err = nil
		return endpoint.Report{Err: err}
	}
	return f.partial.Send(ctx, b, n, setAside)
}

// At a stop, what is said of keys that are set aside leaves out what may have been saved of others.
func TestDoubtBesideKeysSetAside(t *testing.T) {
	f, store, _, stderr := newFlusher(nil, "b")
	f.Endpoint = partial{refuses: "b"}
	f.Flush(t.Context())
	store.Record("a")
	f.Endpoint = &failingOnce{partial{"b", true}, errors.New("no answer")}
	stopped := make(chan struct{})
	close(stopped)
	f.Stderr.Wait(time.Minute)
	stderr.Reset()
	want := "1 hit of 1 key was not delivered (1 hit may have been saved); the log has them"
	if lost := f.Run(t.Context(), stopped, nil); lost != want {
		t.Errorf("lost: %q, want %q", lost, want)
	}
	expectOutput(t, stderr,
		"--- no answer\npixel-ping: refused by the application: 1 hit of 1 key was not delivered; the log has them\n")
}
