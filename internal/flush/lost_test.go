//go:build unix

package flush_test

import (
	"bufio"
	"context"
	"encoding/json"
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
	"testing"
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
	answer func(p part) string // returns the status line without HTTP/1.1
	log    strings.Builder
}

// process begins the next process. It returns its store, and functions that flush and stop.
func (l *lives) process(t *testing.T) (store *hits.Store, flushes, stop func()) {
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
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			r, err := http.ReadRequest(bufio.NewReader(theirs))
			if err != nil {
				return
			}
			p := part{id: r.Header.Get("Idempotency-Key")}
			if json.Unmarshal([]byte(r.FormValue("json")), &p.counts) == nil {
				theirs.Write([]byte("HTTP/1.1 " + l.answer(p) + "\r\n\r\n"))
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
	stop = func() {
		close(stopped)
		f.Run(t.Context(), stopped, nil)
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
	files, _ := filepath.Glob(filepath.Join(l.dir, "*"))
	for _, file := range files {
		// The file grows ahead of its use. Cut before that, it would grow again and have zeroes in place of the counts.
		for limit := time.Now().Add(time.Minute); time.Now().Before(limit); <-time.After(time.Millisecond) {
			if info, err := os.Stat(file); err == nil && info.Size() >= 2<<20 {
				break
			}
		}
		if err := os.Truncate(file, 0); err != nil {
			t.Fatal(err)
		}
	}
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
}

// Each batch has only a key that is refused. However many there are, what follows arrives, and then they are set aside.
func TestBatchesOfBadKeysHoldNothingUp(t *testing.T) {
	for _, status := range []string{"503 Busy", "500 Oops", "403 Forbidden", "413 Too Large"} {
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
		store, flush, _ := l.process(t)
		for _, key := range []string{"bad1", "bad2", "bad3"} {
			store.Record(key)
			for range 20 {
				flush()
			}
		}
		store.Record("good")
		for range 100 {
			flush()
		}
		if want := map[string]int64{"good": 1}; !maps.Equal(saved, want) || store.Pending() > 0 {
			t.Errorf("%s: saved %v, want %v, and %d hits are left", status, saved, want, store.Pending())
		}
	}
}

// Two batches are refused for what they are not. However often the process stops, no more files are there than the two,
// and the live one.
func TestStopsLeaveFewFiles(t *testing.T) {
	l := &lives{answer: func(part) string { return "409 Conflict" }}
	for i := range 4 {
		store, flush, stop := l.process(t)
		for range 3 {
			store.Record(fmt.Sprint(i))
			flush()
		}
		stop()
		if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) != 3 {
			t.Errorf("after %d processes, the journal has %d files, want 3", i+1, len(files))
		}
	}
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

// An application accepts only empty objects. However long it does so, few batches are out, and there are few files and
// POSTs. When it is mended, all arrives at once.
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
		store.Record(fmt.Sprint(i % 5))
		posts = 0
		flush()
		if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) > 10 || posts > 50 {
			t.Fatalf("in flush %d, there are %d files, and %d POSTs are made", i, len(files), posts)
		}
	}
	mended = true
	flush()
	if saved != flushes || store.Pending() > 0 {
		t.Errorf("%d hits are saved, want %d", saved, flushes)
	}
}
