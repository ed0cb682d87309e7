//go:build unix

package hits

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/journal"
	"pixel-ping/internal/stats"
)

// kept returns a Store with a journal in dir.
func kept(t testing.TB, dir string, limit int64) (*Store, *journal.Journal) {
	t.Helper()
	s, err := Open(limit, dir, func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	return s, s.journal
}

// reopened returns a Store as after a crash: nothing of the earlier one is used
// but what is on the disk.
func reopened(t testing.TB, j *journal.Journal, dir string) (*Store, *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return kept(t, dir, plenty)
}

// removeAll deletes the directory of a journal, which may make a file meanwhile.
func removeAll(t *testing.T, dir string) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); os.RemoveAll(dir) != nil; {
		if time.Now().After(limit) {
			t.Fatal("the directory is not deleted")
		}
	}
}

func record(s *Store, keys ...string) {
	for _, key := range keys {
		s.Record(key)
	}
}

func TestCountsAreKept(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b", "a")
	s, j = reopened(t, j, dir)
	if got := s.Pending(); got != 3 {
		t.Errorf("%d hits are pending, want 3", got)
	}
	record(s, "a", "c")
	check(t, s.Take(), map[string]int64{"a": 3, "b": 1, "c": 1})
	record(s, "c")

	// Until the batch is accepted, it stays; afterwards it is gone.
	s, j = reopened(t, j, dir)
	check(t, s.Take(), map[string]int64{"a": 3, "b": 1, "c": 2})
	record(s, "d")
	s.Merge(nil)
	if got := s.Pending(); got != 1 {
		t.Errorf("%d hits are pending, want 1", got)
	}
	s, j = reopened(t, j, dir)
	check(t, s.Take(), map[string]int64{"d": 1})
	s.Merge(nil)
	check(t, s.Take(), nil)
	s.Merge(nil)
	s, j = reopened(t, j, dir)
	if got := s.Pending(); got != 0 {
		t.Errorf("%d hits are pending, want none", got)
	}
	j.Close()
}

// What failed is merged into the next batch, which has another id, and so
// again.
func TestMergeWithAJournal(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b")
	taken := s.Take()
	first := s.ID()
	record(s, "a", "c")
	delete(taken, "b") // It was accepted.
	s.Merge(taken)
	if got := s.Pending(); got != 3 {
		t.Errorf("%d hits are pending, want 3", got)
	}
	taken = s.Take()
	check(t, taken, map[string]int64{"a": 2, "c": 1})
	second := s.ID()
	if second == first {
		t.Error("other counts have the same id")
	}
	s.Merge(taken)
	taken = s.Take()
	if s.ID() != second {
		t.Error("the same counts have another id")
	}
	s.Merge(taken)
	record(s, "d")
	check(t, s.Take(), map[string]int64{"a": 2, "c": 1, "d": 1})
	s, j = reopened(t, j, dir)
	check(t, s.Take(), map[string]int64{"a": 2, "c": 1, "d": 1})
	j.Close()
}

// A batch that was sent before a crash is taken first, alone and as it was.
func TestBatchThatWasSent(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b")
	s.Take()
	id := s.ID()
	progress := journal.Progress{Sent: true, First: 1, End: 2}
	if s.Sent() != nil {
		t.Error("an earlier process is said to have sent the batch")
	}
	s.SetAside(func(key string) bool { return key == "a" })
	s.SetProgress(1, 2)
	record(s, "a", "c")
	s, j = reopened(t, j, dir)
	record(s, "d")
	if got := s.Pending(); got != 5 {
		t.Errorf("%d hits are pending, want 5", got)
	}
	taken := s.Take()
	check(t, taken, map[string]int64{"a": 1, "b": 1})
	if b := s.Sent(); b == nil || s.ID() != id || b.Progress != progress {
		t.Errorf("the batch is %s, %+v, want %s with the progress %v", s.ID(), b, id, progress)
	}
	want := []journal.Record{{Key: "a", Hits: 1, Aside: true}, {Key: "b", Hits: 1}}
	if !slices.Equal(s.Sent().Records, want) {
		t.Errorf("it has the records %v, want %v", s.Sent().Records, want)
	}
	delete(taken, "a")
	s.Merge(taken)
	check(t, s.Take(), map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1})
	if s.Sent() != nil || s.ID() == id {
		t.Error("another batch is taken for the one that was sent")
	}
	s.Merge(nil)
	j.Close()
}

// Of two batches that were sent, one does not come in the way of the other.
func TestTwoBatchesThatWereSent(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	ids := map[string]bool{}
	for _, key := range []string{"a", "b"} {
		record(s, key)
		s.Take()
		s.SetProgress(0, 1)
		ids[s.ID()] = true
	}
	s, j = reopened(t, j, dir)
	for range 2 {
		taken := s.Take()
		if s.Sent() == nil || !ids[s.ID()] {
			t.Errorf("the batch %v is not one that was sent", plain(taken))
		}
		delete(ids, s.ID())
		s.Merge(taken)
	}
	check(t, s.Take(), map[string]int64{"a": 1, "b": 1})
	j.Close()
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b", "b", "c")
	taken := s.Take()
	id := s.ID()
	s.SetProgress(0, 3)
	s.SetAside(func(key string) bool { return key != "a" })
	s.SetProgress(3, 3)
	next := s.Replace([]Count{{"b", 2}, {"c", 1}}, map[string]bool{"c": true})
	if next == id || next != s.ID() || s.Sent() != nil {
		t.Errorf("the batch %s is replaced by %s", id, next)
	}
	if err := s.JournalError(); err != nil {
		t.Error(err)
	}
	delete(taken, "a")
	s.Merge(taken)
	record(s, "c")
	s, j = reopened(t, j, dir)
	if !maps.Equal(s.Aside, map[string]bool{"c": true}) {
		t.Errorf("%v is set aside, want c", s.Aside)
	}
	check(t, s.Take(), map[string]int64{"b": 2, "c": 2})
	j.Close()
}

// What is left of a batch is another batch, even if nothing comes to it.
func TestIDOfWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b", "c")
	taken := s.Take()
	ids := map[string]bool{s.ID(): true}
	for len(taken) > 1 {
		delete(taken, string(rune('a'+len(taken)-1)))
		s.Merge(taken)
		taken = s.Take()
		if ids[s.ID()] {
			t.Errorf("%v has an id that other counts had", plain(taken))
		}
		ids[s.ID()] = true
	}
	check(t, taken, map[string]int64{"a": 1})
	s.Merge(taken)
	j.Close()
}

// The id is a new one, too, if what is left cannot be written to a new file.
func TestIDOfWhatIsLeftWithoutADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	s, j := kept(t, dir, plenty)
	record(s, "a", "b")
	taken, id := s.Take(), s.ID()
	delete(taken, "b")
	s.Merge(taken)
	removeAll(t, dir)
	taken = s.Take()
	check(t, taken, map[string]int64{"a": 1})
	if s.ID() == id {
		t.Error("what is left has the id of the whole")
	}
	s.Merge(nil)
	j.Close()
}

func TestListWithAJournal(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "b", "a")
	s, j = reopened(t, j, dir)
	record(s, "b", "c")
	for range 2 {
		if want := []Count{{"a", 1}, {"b", 2}, {"c", 1}}; !slices.Equal(s.List(), want) {
			t.Errorf("listed %v, want %v", s.List(), want)
		}
	}
	j.Close()
}

// Where the disk is full, keys are counted in memory and delivered all the
// same, and no count is lost or doubled.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	s, j := kept(t, dir, plenty)
	defer j.Close()
	limit := syscall.Rlimit{Cur: 1<<20 + 100, Max: old.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)

	const keys = 200 // of 16 kB, three times what there is room for
	want := map[string]int64{}
	fill := func() {
		for i := range keys {
			key := fmt.Sprint(i, strings.Repeat("x", 16<<10))
			record(s, key, key)
			want[key] += 2
		}
	}
	fill()
	listed := map[string]int64{}
	for _, count := range s.List() {
		listed[count.Key] = count.Hits
	}
	if !maps.Equal(listed, want) {
		t.Errorf("%d keys are listed, not as they were counted", len(listed))
	}
	wantErr := "journal " + dir + ": file too large; " +
		"new keys are counted in memory only, and are lost if the process is killed"
	if err := s.JournalError(); err == nil || err.Error() != wantErr {
		t.Errorf("the error is %v, want %s", err, wantErr)
	}
	if err := s.JournalError(); err != nil {
		t.Errorf("the error is told twice: %v", err)
	}
	got := map[string]int64{}
	flushes := 0
	for s.Pending() > 0 {
		taken := s.Take()
		if flushes++; flushes > 20 {
			t.Fatal("the counts do not come to an end")
		}
		switch flushes {
		case 2: // It fails.
			s.Merge(taken)
			fill()
			continue
		}
		for key, n := range taken {
			got[key] += *n
		}
		s.Merge(nil)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d keys are delivered, not as they were counted", len(got))
	}
	if s.held != 0 || s.out != 0 {
		t.Errorf("an empty Store takes %d and %d bytes", s.held, s.out)
	}
}

// What waits counts towards the limit, and its keys go on counting.
func TestLimitWithAJournal(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, 3*Cost("a"))
	record(s, "a", "b")
	s.Merge(s.Take())
	record(s, "a", "b", "c", "d")
	if got := s.Refused(); got != 2 {
		t.Errorf("%d hits are refused, want 2: those of new keys", got)
	}
	check(t, s.Take(), map[string]int64{"a": 2, "b": 2})
	s.Merge(nil)
	if s.held != 0 || s.out != 0 {
		t.Errorf("an empty Store takes %d and %d bytes", s.held, s.out)
	}
	record(s, "a")
	j.Close()
	s, j = kept(t, dir, 2*Cost("a"))
	record(s, "b", "c")
	if got := s.Refused(); got != 1 {
		t.Errorf("%d hits are refused, want 1", got)
	}
	j.Close()
}

// No hit is lost or counted twice while others take and merge.
func TestConcurrencyWithAJournal(t *testing.T) {
	const goroutines, each = 4, 5000
	s, j := kept(t, t.TempDir(), plenty)
	var recording sync.WaitGroup
	for g := range goroutines {
		recording.Go(func() {
			for i := range each {
				s.Record(fmt.Sprint((g + i) % 500))
			}
		})
	}
	done := make(chan struct{})
	go func() { recording.Wait(); close(done) }()
	watched := make(chan bool)
	go func() { // as a scrape does
		defer close(watched)
		for s.Stats().Recorded < goroutines*each {
		}
	}()
	var sum int64
	for i, running := 0, true; running || s.Pending() > 0; i++ {
		select {
		case <-done:
			running = false
		default:
		}
		taken := s.Take()
		s.List()
		if i%2 == 0 && running {
			s.Merge(taken)
		} else {
			sum += taken.Hits()
			s.Merge(nil)
		}
	}
	if sum != goroutines*each {
		t.Errorf("%d hits, want %d", sum, goroutines*each)
	}
	<-watched
	j.Close()
}

// What an earlier process has counted is pending, and is not counted again.
func TestStatsWithAJournal(t *testing.T) {
	dir := t.TempDir()
	s, j := kept(t, dir, plenty)
	record(s, "a", "b", "a")
	s, j = reopened(t, j, dir)
	defer j.Close()
	record(s, "c")
	if got, want := s.Stats(), (stats.Hits{Recorded: 1, Pending: 4, Keys: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	s.Take()
	if got, want := s.Stats(), (stats.Hits{Recorded: 1, Pending: 4, Keys: 3}); got != want {
		t.Errorf("during a flush: counted %+v, want %+v", got, want)
	}
	s.Merge(nil)
	if got, want := s.Stats(), (stats.Hits{Recorded: 1}); got != want {
		t.Errorf("after it: counted %+v, want %+v", got, want)
	}
}

func TestKnownKeysCostNoAllocationWithAJournal(t *testing.T) {
	s, j := kept(t, t.TempDir(), plenty)
	defer j.Close()
	s.Record("a")
	if allocs := testing.AllocsPerRun(100, func() { s.Record("a") }); allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// BenchmarkRecordWithAJournal takes no longer than BenchmarkRecord.
func BenchmarkRecordWithAJournal(b *testing.B) {
	s, j := kept(b, b.TempDir(), plenty)
	defer j.Close()
	benchmarkRecord(b, s)
}

// Close does not say that the journal keeps what somebody has deleted.
func TestCloseWithoutADirectory(t *testing.T) {
	for _, doubt := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "journal")
		s, _ := kept(t, dir, plenty)
		record(s, "a", "b", "a")
		if doubt {
			s.Take()
		}
		removeAll(t, dir)
		keep, lost := s.Close()
		check(t, keep, nil)
		check(t, lost, map[string]int64{"a": 2, "b": 1})
	}
}

// Close keeps what it can. A batch in doubt that is in memory only is lost: from a file,
// it would come back under another id.
func TestClose(t *testing.T) {
	for _, doubt := range []bool{false, true} {
		dir := t.TempDir()
		var limit syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		setLimit := func(limit syscall.Rlimit) {
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
				t.Fatal(err)
			}
		}
		s, _ := kept(t, dir, plenty)
		full := limit
		full.Cur = 16 << 10 // less than a file with one of the keys; the log of go test needs some
		setLimit(full)
		defer setLimit(limit)
		for i := 0; len(s.loose) == 0; i++ {
			s.Record(fmt.Sprint(i, strings.Repeat("x", 16<<10)))
		}
		s.Take()
		s.Merge(nil)
		if doubt {
			if taken := s.Take(); len(taken) != 1 || s.batch.file != nil {
				t.Fatalf("%d keys are taken, want the one that is in memory only", len(taken))
			}
		}
		setLimit(limit)
		keep, lost := s.Close()
		want := 1
		if doubt {
			want = 0
		}
		if len(keep) != want || len(lost) != 1-want {
			t.Errorf("in doubt %v: %d keys are kept and %d lost", doubt, len(keep), len(lost))
		}
		s, _ = kept(t, dir, plenty)
		if got := s.Pending(); got != int64(want) {
			t.Errorf("in doubt %v: %d hits are recovered, want %d", doubt, got, want)
		}
		s.Close()
	}
}
