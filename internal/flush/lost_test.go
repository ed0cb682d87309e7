//go:build unix

package flush_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// part is a POST that an application has received.
type part struct {
	id     string
	counts map[string]int64
}

func (p part) keys() string { return strings.Join(slices.Sorted(maps.Keys(p.counts)), " ") }

// lives are processes with a journal, one after the other. Each finds what the one before has left, as if that had been
// killed.
type lives struct {
	dir    string
	answer func(p part) string // returns the status line without HTTP/1.1, or "" to cut the connection
	dial   func() error        // called for each connection; nil: none fails
	limit  int64               // connections with larger bodies are cut before they are written whole; 0 for none
	log    strings.Builder
}

// process begins the next process. It returns its store, and functions that flush and stop.
func (l *lives) process(t *testing.T) (store *hits.Store, flushes func(), stop func() (lost string)) {
	t.Helper()
	copied := t.TempDir()
	if l.dir != "" {
		if err := os.CopyFS(copied, os.DirFS(l.dir)); err != nil {
			t.Fatal(err)
		}
	}
	l.dir = copied
	var err error
	store, err = hits.Open(1<<20, l.dir, func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	store.SealRecovered()
	stopped := make(chan struct{})
	t.Cleanup(func() {
		select {
		case <-stopped:
		default:
			store.Close()
		}
	})
	e := endpoint.New(&url.URL{Scheme: "http", Host: "application"}, "/", "", time.Minute)
	e.Dial = func(context.Context, string, string) (net.Conn, error) {
		if l.dial != nil {
			if err := l.dial(); err != nil {
				return nil, err
			}
		}
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			r, err := http.ReadRequest(bufio.NewReader(theirs)) // reads 4 kB
			if err != nil || l.limit > 0 && r.ContentLength > l.limit {
				return
			}
			p := part{id: r.Header.Get("Idempotency-Key")}
			if json.Unmarshal([]byte(r.FormValue("json")), &p.counts) != nil {
				return
			} else if status := l.answer(p); status != "" {
				theirs.Write([]byte("HTTP/1.1 " + status + "\r\n\r\n"))
			}
		}()
		return ours, nil
	}
	log := logwriter.New(&l.log)
	f := &flush.Flusher{Store: store, Endpoint: e, Interval: time.Hour, Stdout: log, Stderr: log}
	flushes = func() {
		f.Flush(t.Context())
		log.Wait(time.Minute)
	}
	stop = func() string {
		close(stopped)
		return f.Run(t.Context(), stopped, nil)
	}
	return store, flushes, stop
}

// next runs a process that records hits, flushes some times, and is killed.
func (l *lives) next(t *testing.T, keys []string, flushes int) {
	t.Helper()
	store, flush, _ := l.process(t)
	for _, key := range keys {
		store.Record(key)
	}
	for range flushes {
		flush()
	}
}

// An application has saved a part, and its answer is lost behind a 500. The process is killed. The part comes again as
// it was.
func TestPartThatWasRefusedComesAgainAsItWas(t *testing.T) {
	saved := make(map[string]int64)
	known := make(map[string]bool)
	limit := 1
	l := &lives{answer: func(p part) string {
		if len(p.counts) > limit {
			return "413 Too Large"
		}
		if known[p.id] || len(p.counts) == 0 {
			return "204 No Content"
		}
		known[p.id] = true
		for key, n := range p.counts {
			saved[key] += n
		}
		if limit == 1 {
			return "500 Oops"
		}
		return "204 No Content"
	}}
	l.next(t, []string{"a", "b"}, 1)
	limit = 2
	l.next(t, nil, 2)
	if want := map[string]int64{"a": 1, "b": 1}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v; the log is:\n%s", saved, want, &l.log)
	}
}

// An application refuses a key, and saves the first POST of each id before it fails. It accepts the second one, as it
// knows the id: each hit is saved once.
func TestSavedBehindAnError(t *testing.T) {
	for _, status := range []string{"500 Oops", "503 Busy", ""} {
		saved, known, tried := make(map[string]int64), make(map[string]bool), make(map[string]bool)
		l := &lives{answer: func(p part) string {
			switch first := !tried[p.id]; {
			case known[p.id] || len(p.counts) == 0:
				return "204 No Content"
			case p.counts["bad"] > 0:
				return status
			default:
				tried[p.id], known[p.id] = true, true
				for key, n := range p.counts {
					saved[key] += n
				}
				if first {
					return status
				}
				return "204 No Content"
			}
		}}
		store, flush, _ := l.process(t)
		want := make(map[string]int64)
		for i := range 4 {
			store.Record("bad")
			for j := range 40 {
				key := fmt.Sprint(i, "key", j)
				store.Record(key)
				want[key]++
			}
			for range 6 {
				flush()
			}
		}
		if !maps.Equal(saved, want) || store.Stats().Pending > 0 || store.Stats().Aside != 4 {
			t.Errorf("%q: %d keys are saved, want %d once each; %+v; the log is:\n%s", status, len(saved), len(want),
				store.Stats(), &l.log)
		}
	}
}

// The application cuts connections with large bodies. If it could not be reached before, that is because of the size. If
// it has answered the same request before, it may have saved the counts, and they come again as they were.
func TestCutsAfterAFailure(t *testing.T) {
	for _, reached := range []bool{false, true} {
		saved, known := int64(0), make(map[string]bool)
		failing := true
		l := &lives{answer: func(p part) string {
			if !known[p.id] {
				known[p.id] = true
				for _, n := range p.counts {
					saved += n
				}
				if failing {
					return "500 Oops"
				}
			}
			return "204 No Content"
		}}
		l.dial = func() error {
			if failing && !reached {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		store, flush, _ := l.process(t)
		for _, key := range []string{"a", "b"} {
			store.Record(strings.Repeat(key, 6000))
		}
		flush()
		failing, l.limit = false, 8000
		flushes := 0
		for ; flushes < 10 && store.Stats().Pending > 0; flushes++ {
			if flushes == 4 {
				l.limit = 0
			}
			flush()
		}
		want := 1
		if reached {
			want = 5
		}
		if saved != 2 || flushes != want {
			t.Errorf("reached before is %v: %d hits are saved after %d flushes, want 2 after %d; the log is:\n%s",
				reached, saved, flushes, want, &l.log)
		}
	}
}

// While there is no connection, no file is written. So after a kill the counts are in the live file.
func TestOutageWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lives{dial: func() error { return io.ErrUnexpectedEOF }}
		store, flush, _ := l.process(t)
		store.Record("a")
		headers := func() (all []string) {
			files, _ := filepath.Glob(filepath.Join(l.dir, "*"))
			for _, name := range files {
				text, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, string(text[:48])) // without the checksum, which has the name
			}
			return all
		}
		unsent := headers()[0]
		flush()
		for _, header := range headers() {
			if header != unsent {
				t.Errorf("a file that was not sent has the header %x, want %x", header, unsent)
			}
		}
		states := func() (all []string) {
			files, _ := filepath.Glob(filepath.Join(l.dir, "*"))
			for _, name := range files {
				info, err := os.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, fmt.Sprint(name, info.Size(), info.ModTime()))
			}
			return all
		}
		synctest.Wait() // Files grow ahead of their use.
		files, _ := filepath.Glob(filepath.Join(l.dir, "*"))
		for _, name := range files { // A change at the same moment would not show.
			if err := os.Chtimes(name, time.Time{}, time.Unix(0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		before := states()
		for range 5 {
			flush()
		}
		if after := states(); !slices.Equal(before, after) {
			t.Errorf("the files were\n%s\nand are\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	})
}

// TestMain keeps go test from writing a log of the files that the tests open. It would fail while fullDisk is in effect.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.testlogfile", "")
	os.Exit(m.Run())
}

// fullDisk returns a function that keeps this process from making files of a journal, or no longer does.
func fullDisk(t *testing.T) func(bool) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(full bool) {
		limit := old
		if full {
			limit.Cur = 512 << 10 // less than such a file
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { set(false) })
	return set
}

// What may have been saved is said of the counts that are in doubt: here of those that are in memory only, as the disk
// was full when they were counted.
func TestDoubtBesideTheJournal(t *testing.T) {
	full := fullDisk(t)
	l := &lives{answer: func(p part) string {
		if p.counts["b"] > 0 {
			return ""
		}
		return "204 No Content"
	}}
	store, flush, stop := l.process(t)
	full(true)
	for range 2 { // One file is made ahead. There is no live file from then on.
		store.Record("a")
		flush()
	}
	store.Record("b")
	full(false)
	flush()
	store.Record("c")
	if lost, want := stop(), "1 hit of 1 key was not delivered (1 hit may have been saved); the log has them"; lost != want {
		t.Errorf("lost: %q, want %q", lost, want)
	}
	if line := "\npixel-ping: 1 hit of 1 key was not delivered; the journal has them\n"; !strings.Contains(l.log.String(), line) {
		t.Errorf("there is no line %q; the log is:\n%s", line, &l.log)
	}
}

// The only key of a batch that an earlier process has left is refused, as if the application were busy. What was
// counted since arrives, and then the key is set aside.
func TestLoneKeyHoldsNothingUp(t *testing.T) {
	for _, status := range []string{"503 Busy", "403 Forbidden", "413 Too Large"} {
		saved := make(map[string]int64)
		l := &lives{answer: func(p part) string {
			if p.counts["bad"] > 0 {
				return status
			}
			for key, n := range p.counts {
				saved[key] += n
			}
			return "204 No Content"
		}}
		l.next(t, []string{"bad"}, 1)
		l.next(t, []string{"b"}, 10)
		if want := map[string]int64{"b": 1}; !maps.Equal(saved, want) {
			t.Errorf("%s: saved %v, want %v; the log is:\n%s", status, saved, want, &l.log)
		}
		if !strings.Contains(l.log.String(), "Refused by the application:\n1:\tbad\n") {
			t.Errorf("%s: the log is:\n%s", status, &l.log)
		}
	}
}

// If a file of the journal is cut while it is in use, the daemon goes on, counts in memory, and says both this and what
// is lost.
func TestFileThatIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		saved := make(map[string]int64)
		l := &lives{answer: func(p part) string {
			for key, n := range p.counts {
				saved[key] += n
			}
			return "204 No Content"
		}}
		store, flush, _ := l.process(t)
		store.Record("a")
		store.Record("c")
		cut(t, l.dir)
		store.Record("a")
		store.Record("b")
		flush()
		if want := map[string]int64{"a": 1, "b": 1}; !maps.Equal(saved, want) {
			t.Errorf("saved %v, want %v", saved, want)
		}
		for _, consequence := range []string{
			"new keys are counted in memory only, and are lost if the process is killed", "the hits of 2 keys are lost",
		} {
			line := "pixel-ping: journal " + l.dir + ": the disk can not provide a page of a file; " + consequence + "\n"
			if !strings.Contains(l.log.String(), line) {
				t.Errorf("there is no line %q; the log is:\n%s", line, &l.log)
			}
		}
	})
}

// Each batch has only a key that is refused. What follows up to three of them arrives, and what follows one more for each
// hour, and then they are set aside.
func TestBatchesOfBadKeysHoldNothingUp(t *testing.T) {
	for _, status := range []string{"503 Busy", "500 Oops", "403 Forbidden", "413 Too Large"} {
		synctest.Test(t, func(t *testing.T) {
			for bad := range 5 {
				holdUp(t, status, bad+1)
			}
		})
	}
}

func holdUp(t *testing.T, status string, bad int) {
	saved := make(map[string]int64)
	l := &lives{answer: func(p part) string {
		for key := range p.counts {
			if strings.HasPrefix(key, "bad") {
				return status
			}
		}
		for key, n := range p.counts {
			saved[key] += n
		}
		return "204 No Content"
	}}
	store, flush, stop := l.process(t)
	wait := time.Duration(0)
	for i := range bad {
		store.Record(fmt.Sprint("bad", i))
		<-time.After(wait)
		for range 20 {
			flush()
		}
		if i >= 3 {
			wait = time.Hour
		}
	}
	store.Record("good")
	if wait > 0 {
		<-time.After(wait - time.Second)
		if flush(); len(saved) > 0 {
			t.Errorf("%s, %d batches: saved %v too early", status, bad, saved)
		}
		<-time.After(time.Second)
	}
	for range 100 {
		flush()
	}
	if want := map[string]int64{"good": 1}; !maps.Equal(saved, want) || store.Stats().Pending > 0 {
		t.Errorf("%s, %d batches: saved %v, want %v, and %d hits are left", status, bad, saved, want, store.Stats().Pending)
	}
	stop()
}

// All batches are refused for what they are not. However often the process stops, there are few files.
func TestStopsLeaveFewFiles(t *testing.T) {
	l := &lives{answer: func(part) string { return "409 Conflict" }}
	for i := range 8 {
		store, flush, stop := l.process(t)
		for range 3 {
			store.Record(fmt.Sprint(i))
			flush()
		}
		stop()
		if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) > 5 {
			t.Errorf("after %d processes, the journal has %d files, want 5 at most", i+1, len(files))
		}
	}
}

// The application has crashed three times while it held the lock of an id, and answers each of them with 409. The ids hold
// back their own batches alone.
func TestLockedIDs(t *testing.T) {
	locked, saved := make(map[string]bool), int64(0)
	l := &lives{answer: func(p part) string {
		switch {
		case locked[p.id]:
			return "409 Conflict"
		case len(locked) < 3:
			locked[p.id] = true
			return ""
		}
		saved += p.counts["a"]
		return "204 No Content"
	}}
	store, flush, stop := l.process(t)
	for range 10 {
		store.Record("a")
		flush()
	}
	if saved+3 < 10 || store.Stats().Pending != 10-saved {
		t.Errorf("%d hits of 10 are saved, and %d are left", saved, store.Stats().Pending)
	}
	if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) > 5 {
		t.Errorf("%d files", len(files))
	}
	stop()
}

// A flush without an endpoint reads what the journal has: it makes, deletes and rewrites no file.
func TestWithoutEndpointNoFileChanges(t *testing.T) {
	type file struct {
		info os.FileInfo
		text string
	}
	dir := t.TempDir()
	files := func() map[string]file {
		all := make(map[string]file)
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all[name] = file{info, string(text)}
		}
		return all
	}
	store, err := hits.Open(1<<20, dir, func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	store.Record("a")
	var log strings.Builder
	f := flush.Flusher{
		Store: store, Interval: time.Minute, Stdout: logwriter.New(&log), Stderr: logwriter.New(io.Discard),
	}
	before := files()
	for range 3 {
		f.Flush(t.Context())
	}
	f.Stdout.Wait(time.Minute)
	if want := strings.Repeat("1:\ta\n", 3); log.String() != want {
		t.Errorf("the log has %q, want %q", log.String(), want)
	}
	after := files()
	if len(before) != 1 || len(after) != 1 {
		t.Fatalf("there are %d files, and after the flushes %d, want 1", len(before), len(after))
	}
	for name, b := range before { // A file may grow meanwhile.
		if a, ok := after[name]; !ok || !os.SameFile(a.info, b.info) || !strings.HasPrefix(a.text, b.text) {
			t.Errorf("%s has changed", name)
		}
	}
}

// An application accepts only empty objects. However many flushes there are, and kills, few batches are out, and there are
// few files and POSTs. When it is mended, all arrives at once.
func TestRefusalOfEverythingMakesFewFiles(t *testing.T) {
	posts, mended, saved := 0, false, int64(0)
	l := &lives{answer: func(p part) string {
		if posts++; len(p.counts) > 0 && !mended {
			return "403 Forbidden"
		}
		for _, n := range p.counts {
			saved += n
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	const flushes = 300
	for i := range flushes {
		if i%60 == 59 { // The process is killed.
			store, flush, _ = l.process(t)
		}
		store.Record(fmt.Sprint(i % 5))
		posts = 0
		flush()
		if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) > 5 || posts > 50 {
			t.Fatalf("in flush %d, there are %d files, and %d POSTs are made", i, len(files), posts)
		}
	}
	mended = true
	flush()
	if saved != flushes || store.Stats().Pending > 0 {
		t.Errorf("%d hits are saved, want %d", saved, flushes)
	}
}

// The hits in doubt are those of all batches, whether or not the journal has them.
func TestStatsOfDoubtInTheJournal(t *testing.T) {
	store, err := hits.Open(1<<20, t.TempDir(), func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	e := endpoint.New(&url.URL{Scheme: "http", Host: "application"}, "/", "", time.Minute)
	e.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			http.ReadRequest(bufio.NewReader(theirs))
			theirs.Close()
		}()
		return ours, nil
	}
	log := logwriter.New(io.Discard)
	f := &flush.Flusher{Store: store, Endpoint: e, Interval: time.Hour, Stdout: log, Stderr: log}
	store.Record("a")
	f.Flush(t.Context())
	if got := f.Stats().InDoubt; got != 1 {
		t.Errorf("%d hits are in doubt, want 1", got)
	}
}

// Two batches have many keys that are refused. In a flush, at most a hundred POSTs are, also if everything is refused at
// the end of it, empty objects too.
func TestRefusalsOfAFlush(t *testing.T) {
	for _, status := range []string{"403 Forbidden", "500 Oops"} {
		for _, most := range []int{90, 96, 1000} { // From then on, everything is refused.
			refused, delivered := 0, 0
			l := &lives{answer: func(p part) string {
				bad := refused >= most
				for key := range p.counts {
					bad = bad || strings.HasPrefix(key, "bad")
				}
				if bad {
					refused++
					return status
				}
				delivered += len(p.counts)
				return "204 No Content"
			}}
			store, flush, _ := l.process(t)
			for batch := range 2 {
				for i := range 100 {
					store.Record(fmt.Sprint("bad", batch, i))
					store.Record(fmt.Sprint("good", batch, i))
				}
				flush()
			}
			for i := range 5 {
				if refused = 0; i == 4 && delivered == 0 {
					t.Errorf("%s: nothing is delivered", status)
				}
				if flush(); refused > 100 {
					t.Errorf("%s: %d POSTs of a flush are refused", status, refused)
				}
			}
		}
	}
}

// A batch that is delivered in part, and waits, does not hold the keys that are done with.
func TestPartOfABatchIsFreed(t *testing.T) {
	l := &lives{answer: func(p part) string {
		switch {
		case len(p.counts) > 1:
			return "413 Too Large"
		case p.counts["bb"] > 0:
			return "409 Conflict"
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	for _, key := range []string{"a", "bb", "ccc"} {
		store.Record(key)
	}
	flush()
	b := store.Batch(0)
	if b == nil || len(b.Left()) != 2 {
		t.Fatalf("the batch is %+v", b)
	}
	if b.List[0].Key != "" {
		t.Errorf("the key %q is held", b.List[0].Key)
	}
}

// An application accepts nothing but an empty object. After 15 hours, twelve batches are out. However many there are, a
// flush has at most 100 refused POSTs, also if the next process begins with all of them.
func TestManyBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := 0
		l := &lives{answer: func(p part) string {
			if len(p.counts) == 0 {
				return "204 No Content"
			}
			refused++
			return "500 Oops"
		}}
		store, flush, stop := l.process(t)
		few := func() {
			refused = 0
			if flush(); refused > 100 {
				t.Errorf("%d POSTs of a flush are refused", refused)
			}
		}
		for hour := range 15 {
			for i := range 64 {
				store.Record(fmt.Sprint(hour, i))
			}
			for range 20 {
				few()
			}
			<-time.After(time.Hour)
		}
		if store.Batch(11) == nil || store.Batch(12) != nil {
			t.Error("there are not twelve batches")
		}
		stop()
		_, flush, stop = l.process(t)
		for range 10 {
			few()
		}
		stop()
	})
}

// Somebody deletes the journal while a batch is in doubt. That it may have been saved is said of what is lost.
func TestDoubtInADeletedJournal(t *testing.T) {
	l := &lives{answer: func(part) string { return "" }}
	store, flush, stop := l.process(t)
	store.Record("a")
	flush()
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	if lost, want := stop(), "1 hit of 1 key was not delivered (1 hit may have been saved); the log has them"; lost != want {
		t.Errorf("lost: %q, want %q", lost, want)
	}
}

// Two batches are refused for what they are not, and stay in the journal. What is in memory only, as the disk was full,
// is sent at a stop.
func TestStopSendsWhatNoJournalKeeps(t *testing.T) {
	full := fullDisk(t)
	saved := int64(0)
	l := &lives{answer: func(p part) string {
		if p.counts["c"] > 0 {
			saved += p.counts["c"]
			return "204 No Content"
		}
		return "409 Conflict"
	}}
	store, flush, stop := l.process(t)
	store.Record("a")
	flush()
	store.Record("b")
	full(true)
	flush() // There is no live file from now on.
	store.Record("c")
	if lost := stop(); lost != "" || saved != 1 {
		t.Errorf("saved %d hits, and lost: %q", saved, lost)
	}
}

// At a stop, the disk is full, and so some hits are in memory only. They are lost without an endpoint, too: the journal
// has promised to keep the totals. With Discard they are none that a stop has to deliver.
func TestStopWithAFullDisk(t *testing.T) {
	full := fullDisk(t)
	for _, discard := range []bool{false, true} {
		store, err := hits.Open(1<<23, t.TempDir(), func(line string) { t.Error(line) })
		if err != nil {
			t.Fatal(err)
		}
		log := logwriter.New(io.Discard)
		f := &flush.Flusher{Store: store, Discard: discard, Interval: time.Hour, Stdout: log, Stderr: log}
		if discard {
			e := endpoint.New(&url.URL{Scheme: "http", Host: "application"}, "/", "", time.Minute)
			e.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrUnexpectedEOF }
			f.Endpoint = e
		}
		full(true)
		for i := range 300 { // The file has room for some 130.
			store.Record(fmt.Sprint(i, strings.Repeat("x", 16<<10)))
		}
		stopped := make(chan struct{})
		close(stopped)
		lost := f.Run(t.Context(), stopped, nil)
		if said := strings.HasSuffix(lost, " were not delivered; the log has them"); said == discard || discard && lost != "" {
			t.Errorf("discard is %v, lost: %q", discard, lost)
		}
		full(false)
	}
}

// What a stop finds lost is said.
func TestStopWithAFileThatIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		store, err := hits.Open(1<<20, dir, func(line string) { t.Error(line) })
		if err != nil {
			t.Fatal(err)
		}
		store.Record("a")
		store.Record("b")
		cut(t, dir)
		var text strings.Builder
		log := logwriter.New(&text)
		f := &flush.Flusher{Store: store, Interval: time.Hour, Stdout: log, Stderr: log}
		stopped := make(chan struct{})
		close(stopped)
		f.Run(t.Context(), stopped, nil)
		log.Wait(time.Minute)
		if line := "the disk can not provide a page of a file; the hits of 2 keys are lost\n"; !strings.HasSuffix(text.String(), line) {
			t.Errorf("the log is:\n%s", &text)
		}
	})
}

// cut cuts the files of a journal. They grow ahead of their use: cut before that, a file would grow again and have zeroes
// in place of the counts.
func cut(t *testing.T, dir string) {
	t.Helper()
	synctest.Wait()
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// With a journal, the last line of a process that ends too early does not say that all is lost.
func TestUnfinishedWithAJournal(t *testing.T) {
	store, err := hits.Open(1<<20, t.TempDir(), func(line string) { t.Error(line) })
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	store.Record("a")
	f := &flush.Flusher{Store: store}
	if got, want := f.Unfinished(), "up to 1 hit were not delivered; the journal has those that it had room for"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
