//go:build unix

package hits

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/stats"
)

// kept returns a Store with a journal in dir.
func kept(t testing.TB, dir string, limit int64) *Store {
	t.Helper()
	s, err := Open(limit, dir, func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.journal.Close() })
	return s
}

// reopened returns a Store as after a kill: nothing of the earlier one is used but what is on the disk.
func reopened(t testing.TB, s *Store, dir string) *Store {
	t.Helper()
	s.journal.Seal() // Otherwise Close would delete a file that has no key, which a kill does not.
	s.journal.Close()
	return kept(t, dir, plenty)
}

// batches returns the lists of what is left of the batches that are out, as check has them.
func left(s *Store) (texts []string) {
	for _, b := range s.batches {
		var text []string
		for _, count := range b.Left() {
			text = append(text, fmt.Sprintf("%s=%d", count.Key, count.Hits))
		}
		texts = append(texts, strings.Join(text, " "))
	}
	slices.Sort(texts)
	return texts
}

func expectLeft(t *testing.T, s *Store, want ...string) {
	t.Helper()
	if got := left(s); !slices.Equal(got, want) {
		t.Errorf("the batches that are out have %q, want %q", got, want)
	}
}

// hitsFiles returns the names of the files in dir.
func hitsFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// What was counted and not sent goes on growing in the next process, in the same file.
func TestCountsAreKept(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	record(s, "a", "b", "a")
	s = reopened(t, s, dir)
	check(t, s.Recovered, "a=2 b=1")
	record(s, "a", "c")
	s = reopened(t, s, dir)
	if got, want := s.Stats(), (stats.Hits{Pending: 5, Keys: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	b := seal(s)
	check(t, b.List, "a=3 b=1 c=1")
	s.Forget(b)
	s = reopened(t, s, dir)
	check(t, s.Recovered, "")
	s.Close()
	if names := hitsFiles(t, dir); len(names) > 0 {
		t.Errorf("an empty journal has the files %q", names)
	}
}

// What was sent stays as it is, under its id, and goes on where it was. What came later is another batch.
func TestBatchThatWasSent(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	record(s, "a", "bb", "ccc", "dddd")
	b := seal(s)
	b.Begin(0, 1)
	sending(t, b)
	b.Accepted()
	b.Begin(1, 3)
	sending(t, b)
	id := b.PartID()
	record(s, "a", "x")
	s = reopened(t, s, dir)
	check(t, s.Recovered, "a=1 bb=1 ccc=1 dddd=1 x=1")
	if got, want := s.Stats(), (stats.Hits{Pending: 5, Keys: 5}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	b = s.Batch(0)
	if b.First != 1 || b.From != 1 || b.End != 3 || !b.Doubt || b.PartID() != id {
		t.Errorf("the batch has the progress %+v, in doubt %v, and the part %s, want %s", b.Progress, b.Doubt, b.PartID(), id)
	}
	check(t, b.Part(), "bb=1 ccc=1")
	check(t, b.Left(), "bb=1 ccc=1 dddd=1")
	if want := cost(b.Left()...); s.out != want || b.List[0].Key != "" || b.file.Records != nil {
		t.Errorf("the batch takes %d bytes, want %d, and holds the key %q and %v", s.out, want, b.List[0].Key, b.file.Records)
	}

	// One that was refused is not in doubt, and stays as it is all the same.
	b.Refused(true)
	record(s, "y")
	s = reopened(t, s, dir)
	if b = s.Batch(0); b.Doubt || b.First != 1 || !b.Sent {
		t.Errorf("the batch has the progress %+v, in doubt %v", b.Progress, b.Doubt)
	}
	check(t, seal(s).List, "a=1 x=1 y=1")
	expectLeft(t, s, "a=1 x=1 y=1", "bb=1 ccc=1 dddd=1")
}

// A key that is done with out of turn stays so.
func TestKeyOutOfTurn(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	record(s, "a", "b", "c", "d")
	b := seal(s)
	b.Begin(2, 3)
	sending(t, b)
	b.Accepted()
	b.Begin(0, 1)
	sending(t, b)
	s = reopened(t, s, dir)
	check(t, s.Batch(0).Left(), "a=1 b=1 d=1")
	s.Batch(0).Finish(2)
	check(t, s.Batch(0).Left(), "d=1")
}

// A flush without an endpoint only reads: no file is written, made or deleted.
func TestListChangesNoFile(t *testing.T) {
	dir := t.TempDir()
	type state struct {
		name  string
		size  int64
		at    time.Time
		inode uint64
	}
	states := func() (all []state) {
		for _, name := range hitsFiles(t, dir) {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, state{name, info.Size(), info.ModTime(), info.Sys().(*syscall.Stat_t).Ino})
		}
		return all
	}
	synctest.Test(t, func(t *testing.T) {
		s := kept(t, dir, plenty)
		record(s, "a", "b")
		b := seal(s)
		b.Begin(0, 2)
		sending(t, b)
		record(s, "b")
		s = reopened(t, s, dir)
		if s.live["b"] == nil || len(hitsFiles(t, dir)) != 2 {
			t.Fatalf("the files are %q", hitsFiles(t, dir))
		}
		s.journal.Prepare() // The file for the next batch is there.
		waitForGrowth(t, dir)
		for _, name := range hitsFiles(t, dir) { // A change at the same moment would not show.
			if err := os.Chtimes(name, time.Time{}, time.Unix(0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		before := states()
		for range 3 {
			check(t, s.List(), "a=1 b=2")
		}
		if after := states(); !slices.Equal(after, before) {
			t.Errorf("the files were %v and are %v", before, after)
		}
	})
}

// waitForGrowth waits until no file in dir grows: until each has room ahead of its use, and its pages are writable. The
// journal is opened in the bubble that calls it.
func waitForGrowth(t *testing.T, dir string) {
	t.Helper()
	synctest.Wait()
	for _, name := range hitsFiles(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Size() < 2<<20 {
			t.Fatalf("%s has not grown: %v", name, err)
		}
	}
}

// What is in memory only is merged back, and so into the journal as soon as that has room. What a file has
// does not go to another one.
func TestMemoryOnly(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	full := fullDisk(t, s)
	inFile := len(s.live)
	if len(s.loose) == 0 {
		t.Fatal("there is no key in memory only")
	}
	s.Seal(nil, false)
	if len(s.batches) != 2 || !s.batches[0].Kept() || s.batches[1].Kept() {
		t.Fatalf("there are %d batches, want one of a file and one of memory", len(s.batches))
	}
	full(false)
	s.journal.Prepare()
	s.Seal(nil, true) // nothing, but there is a live file again
	s.Merge(s.batches[1])
	if len(s.loose) > 0 || len(s.live) == 0 {
		t.Errorf("%d keys are still in memory only, and %d in the journal", len(s.loose), len(s.live))
	}
	total := inFile + len(s.live)
	s = reopened(t, s, dir)
	if got := len(s.Recovered); got != total {
		t.Errorf("%d keys are recovered, want %d", got, total)
	}
}

// TestMain keeps go test from writing a log of the files that the tests open. It would fail while fullDisk is in effect.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.testlogfile", "")
	os.Exit(m.Run())
}

// fullDisk counts keys of 16 kB until one is in memory only. No file may be written from then on, until
// full is called with false.
func fullDisk(t *testing.T, s *Store) (full func(bool)) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	full = func(full bool) {
		limit := old
		if full {
			limit.Cur = 512 << 10 // less than a file of the journal
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { full(false) })
	full(true)
	for i := 0; len(s.loose) == 0; i++ {
		s.Record(fmt.Sprint(i, strings.Repeat("x", 16<<10)))
	}
	return full
}

// Where the disk is full, keys are counted in memory and delivered all the same, and no count is lost or doubled.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := kept(t, t.TempDir(), plenty)
		fullDisk(t, s)
		for s.JournalError() != nil {
		}
		want := map[string]int64{}
		for _, count := range s.List() {
			want[count.Key] = count.Hits
		}
		fill := func() {
			for i := range 100 {
				key := fmt.Sprint(i, strings.Repeat("x", 16<<10))
				record(s, key, key)
				want[key] += 2
			}
		}
		fill()
		got := map[string]int64{}
		for _, count := range s.List() {
			got[count.Key] = count.Hits
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d keys are listed, not as they were counted", len(got))
		}
		// At first the disk may be only slow.
		for text, i := "", 0; !strings.Contains(text, ": file too large; new keys are counted in memory only, and are lost"); i++ {
			if err := s.JournalError(); err != nil {
				text = err.Error()
			}
			if i == 10_000 {
				t.Fatalf("the last error is %s", text)
			}
			<-time.After(time.Millisecond)
			key := fmt.Sprint("more", i%200, strings.Repeat("x", 16<<10))
			record(s, key)
			want[key]++
		}
		clear(got)
		for flushes := 0; s.Stats().Pending > 0; flushes++ {
			if flushes == 1 {
				fill()
			}
			s.Seal(nil, true)
			for len(s.batches) > 0 {
				b := s.batches[0]
				if flushes == 0 && !b.Kept() { // It fails.
					s.Merge(b)
					continue
				}
				for _, count := range b.List {
					got[count.Key] += count.Hits
				}
				s.Forget(b)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("%d keys are delivered, not as they were counted", len(got))
		}
		if s.held != 0 || s.out != 0 || s.Stats().Keys != 0 {
			t.Errorf("an empty Store takes %d and %d bytes, and has %d keys", s.held, s.out, s.Stats().Keys)
		}
	})
}

// A fault in the mapping does not end the process. Hits are counted in memory from then on; the counts that
// cannot be read are lost, and that is said.
func TestFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := kept(t, dir, plenty)
		record(s, "a", "b", "a")
		waitForGrowth(t, dir)
		for _, name := range hitsFiles(t, dir) {
			if err := os.Truncate(name, 0); err != nil {
				t.Fatal(err)
			}
		}
		record(s, "a", "c", "c")
		text := fmt.Sprint(s.JournalError())
		if !strings.Contains(text, "the disk can not provide a page of a file; new keys are counted in memory only") {
			t.Errorf("the error is %s", text)
		}
		check(t, s.List(), "a=1 c=2")
		s.Seal(nil, false)
		text = fmt.Sprint(s.JournalError())
		if !strings.HasSuffix(text, "the hits of 2 keys are lost") {
			t.Errorf("the error is %s", text)
		}
		expectLeft(t, s, "a=1 c=2")
		if got, want := s.Stats(), (stats.Hits{Recorded: 6, Pending: 3, Keys: 2}); got != want {
			t.Errorf("counted %+v, want %+v: what is lost is not pending", got, want)
		}
		record(s, "a", "d")
		s.Seal(nil, false)
		expectLeft(t, s, "a=1 c=2", "a=1 d=1")
		if s.batches[0].Kept() || s.batches[1].Kept() {
			t.Error("a file is used after a fault")
		}
	})
}

// Keys that are set aside leave the file before it is sent: after a kill, they do not come back.
func TestSetAsideWithAJournal(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	s.SetAside([]Count{{Key: "b", Hits: 1}})
	record(s, "a", "b", "c")
	s.Seal(func(list []Count) { check(t, list, "b=1"); s.SetAside(list) }, false)
	expectLeft(t, s, "a=1 c=1")
	s.batches[0].Begin(0, 2)
	sending(t, s.batches[0])
	id := s.batches[0].PartID()
	record(s, "b")
	s = reopened(t, s, dir)
	expectLeft(t, s, "a=1 c=1")
	if got := s.batches[0].PartID(); got != id {
		t.Errorf("the id is %s, want %s", got, id)
	}
	check(t, seal(s).List, "b=1")
}

// If all keys of a file are set aside, there is no batch and no file.
func TestAllAreSetAside(t *testing.T) {
	dir := t.TempDir()
	s := kept(t, dir, plenty)
	s.SetAside([]Count{{Key: "b", Hits: 1}})
	record(s, "b")
	s.Seal(func(list []Count) { s.SetAside(list) }, false)
	expectLeft(t, s)
	if got := s.Stats(); got.Pending != 0 || got.Aside != 2 {
		t.Errorf("counted %+v", got)
	}
	s.Close()
	if names := hitsFiles(t, dir); len(names) > 0 {
		t.Errorf("the files are %q", names)
	}
}

// What waits counts towards the limit.
func TestLimitWithAJournal(t *testing.T) {
	s := kept(t, t.TempDir(), 3*cost(Count{Key: "a"}))
	record(s, "a", "b")
	seal(s)
	record(s, "a", "b", "c", "d")
	if got := s.Stats().Refused; got != 1 {
		t.Errorf("%d hits are refused, want 1", got)
	}
	seal(s)
	record(s, "a", "b")
	if got := s.Stats().Refused; got != 2 {
		t.Errorf("%d hits are refused, want 2: five keys are out", got)
	}
	s.Forget(s.batches[0])
	s.Forget(s.batches[0])
	s.Forget(seal(s))
	if s.held != 0 || s.out != 0 {
		t.Errorf("an empty Store takes %d and %d bytes", s.held, s.out)
	}
}

// No hit is lost or counted twice while others seal, list and look.
func TestConcurrencyWithAJournal(t *testing.T) {
	const goroutines, each = 4, 5000
	s := kept(t, t.TempDir(), plenty)
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
			s.JournalError()
		}
	}()
	var sum int64
	for running := true; running || s.Stats().Pending > 0; {
		select {
		case <-done:
			running = false
		default:
		}
		s.Seal(nil, false)
		s.List()
		for len(s.batches) > 0 {
			sum += Sum(s.batches[0].List)
			s.Forget(s.batches[0])
		}
	}
	if sum != goroutines*each {
		t.Errorf("%d hits, want %d", sum, goroutines*each)
	}
	<-watched
}

func TestKnownKeysCostNoAllocationWithAJournal(t *testing.T) {
	s := kept(t, t.TempDir(), plenty)
	s.Record("a")
	if allocs := testing.AllocsPerRun(100, func() { s.Record("a") }); allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// BenchmarkRecordWithAJournal takes hardly longer than BenchmarkRecord.
func BenchmarkRecordWithAJournal(b *testing.B) {
	benchmarkRecord(b, kept(b, b.TempDir(), plenty))
}

// Close keeps what it can. What is in memory only goes to the journal if that has room by now. A batch in doubt
// that is in memory only is lost: from a file, it would come back under another id.
func TestClose(t *testing.T) {
	for _, doubt := range []bool{false, true} {
		dir := t.TempDir()
		s := kept(t, dir, plenty)
		full := fullDisk(t, s)
		inFile := len(s.live)
		s.Seal(nil, false)
		s.batches[1].Doubt = doubt
		record(s, "new")
		full(false)
		s.journal.Prepare()
		s.Seal(nil, true)
		keep, lost := s.Close()
		want := inFile + 2
		if doubt {
			want--
		}
		if len(keep) != want || len(lost) != inFile+2-want {
			t.Errorf("in doubt %v: %d keys are kept and %d lost, want %d kept", doubt, len(keep), len(lost), want)
		}
		if got := len(kept(t, dir, plenty).Recovered); got != want {
			t.Errorf("in doubt %v: %d keys are recovered, want %d", doubt, got, want)
		}
	}
}

// Close does not say that the journal keeps what somebody has deleted.
func TestCloseWithoutADirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, sealed := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "journal")
			s := kept(t, dir, plenty)
			record(s, "a", "b", "a")
			if sealed {
				seal(s)
			}
			waitForGrowth(t, dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			keep, lost := s.Close()
			check(t, keep, "")
			check(t, lost, "a=2 b=1")
		}
	})
}

// Stats may be called while the Store is closed.
func TestStatsWhileClosing(t *testing.T) {
	s, err := Open(plenty, t.TempDir(), func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	record(s, "a")
	var done sync.WaitGroup
	done.Go(func() {
		for range 1000 {
			if got := s.Stats().Pending; got != 1 {
				t.Errorf("%d hits are pending", got)
			}
		}
	})
	s.Close()
	done.Wait()
}

// Close may wait for the disk for long. It holds no lock then, so that the daemon can say what it leaves undone.
func TestCloseHoldsNoLock(t *testing.T) {
	s := kept(t, t.TempDir(), plenty)
	fullDisk(t, s)
	s.mu.Lock()
	closed := make(chan struct{})
	go func() {
		s.Close()
		close(closed)
	}()
	select {
	case <-closed:
		s.mu.Unlock()
	case <-time.After(time.Minute):
		t.Fatal("Close needs the lock of Stats")
	}
}

// What is in memory only goes to the live file at the end, if that has room by then. Close waits for the disk.
func TestCloseFindsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := kept(t, dir, plenty)
		full := fullDisk(t, s)
		for i := range 300 {
			record(s, fmt.Sprint("more", i, strings.Repeat("x", 16<<10)))
		}
		full(false)
		<-time.After(time.Minute) // A disk that was full is not tried again at once.
		all := len(s.live) + len(s.loose)
		if keep, lost := s.Close(); len(keep) != all || len(lost) > 0 || !s.journal.Patient {
			t.Errorf("%d keys are kept and %d lost, want %d and none; patient is %v", len(keep), len(lost), all, s.journal.Patient)
		}
		if got := len(kept(t, dir, plenty).Recovered); got != all {
			t.Errorf("%d keys are recovered, want %d", got, all)
		}
	})
}
