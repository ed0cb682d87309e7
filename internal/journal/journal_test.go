//go:build unix

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// opened opens the journal in dir for as long as the test runs, and fails it if
// anything is told.
func opened(t testing.TB, dir string) (*Journal, []*Batch) {
	t.Helper()
	j, batches, err := Open(dir, func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	return j, batches
}

func closed(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// add adds a key for which there must be room.
func add(t testing.TB, j *Journal, key string, hits int64) *int64 {
	t.Helper()
	n, err := j.Add(key, hits)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// take takes the live file, and lets the next one be made first.
func take(j *Journal) *Batch {
	j.Prepare()
	return j.Take()
}

func hits(batches ...*Batch) map[string]int64 {
	m := make(map[string]int64)
	for _, b := range batches {
		for _, r := range b.Records {
			m[r.Key] += r.Hits
		}
	}
	return m
}

func check(t testing.TB, batches []*Batch, number int, want map[string]int64) {
	t.Helper()
	if len(batches) != number {
		t.Fatalf("%d batches are recovered, want %d", len(batches), number)
	}
	if got := hits(batches...); !maps.Equal(got, want) {
		t.Errorf("recovered %v, want %v", got, want)
	}
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLiveFileIsRecovered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, batches := opened(t, dir)
	check(t, batches, 0, map[string]int64{})
	want := map[string]int64{}
	for i := range 50_000 { // more than a chunk
		key := fmt.Sprintf("%s-%d", strings.Repeat("é", i%40), i)
		n := add(t, j, key, 1)
		*n += int64(i)
		want[key] = int64(i) + 1
	}
	long := strings.Repeat("x", maxKey)
	*add(t, j, long, 1)++
	want[long] = 2
	if _, err := j.Add(long+"x", 1); err == nil {
		t.Error("a key that is too long is added")
	}
	closed(t, j)

	for range 2 { // What is not removed stays.
		j, batches = opened(t, dir)
		check(t, batches, 1, want)
		if batches[0].Progress != (Progress{}) {
			t.Errorf("the progress is %v", batches[0].Progress)
		}
		if !slices.IsSortedFunc(batches[0].Records, func(a, b Record) int { return strings.Compare(a.Key, b.Key) }) {
			t.Error("the keys are not sorted")
		}
		closed(t, j)
	}
	for _, name := range append(files(t, dir), dir) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v", name, info.Mode())
		}
	}
}

func TestBatchThatWasSent(t *testing.T) {
	dir := t.TempDir()
	j, _ := opened(t, dir)
	if take(j) != nil {
		t.Error("a file without a key is taken")
	}
	for _, key := range []string{"c", "a", "b"} {
		add(t, j, key, 1)
	}
	b := take(j)
	add(t, j, "a", 5)
	progress := Progress{Sent: true, First: 1, End: 3}
	if err := b.SetAside(func(key string) bool { return key == "a" }); err != nil {
		t.Fatal(err)
	}
	if err := b.SetProgress(progress); err != nil {
		t.Fatal(err)
	}
	closed(t, j)

	j, batches := opened(t, dir)
	if len(batches) != 2 {
		t.Fatalf("%d batches, want 2", len(batches))
	}
	sent := batches[0]
	if sent.ID != b.ID || sent.Progress != progress {
		t.Errorf("batch %s with the progress %v comes first, want %s with %v", sent.ID, sent.Progress, b.ID, progress)
	}
	if want := []Record{{"a", 1, true}, {"b", 1, false}, {"c", 1, false}}; !slices.Equal(sent.Records, want) {
		t.Errorf("it has the records %v, want %v", sent.Records, want)
	}
	check(t, batches[1:], 1, map[string]int64{"a": 5})

	// Accepted as a whole, but for what is set aside.
	if err := sent.SetProgress(Progress{true, 3, 3}); err != nil {
		t.Fatal(err)
	}
	if err := batches[1].Remove(); err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	j, batches = opened(t, dir)
	check(t, batches, 1, map[string]int64{"a": 1, "b": 1, "c": 1})

	b, err := j.Write(slices.Values([]Record{{"a", 1, false}}), batches...)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.SetProgress(Progress{true, 1, 1}); err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	j, batches = opened(t, dir)
	check(t, batches, 0, map[string]int64{})
	closed(t, j)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	j, _ := opened(t, dir)
	add(t, j, "a", 1)
	first := take(j)
	add(t, j, "b", 2)
	second := take(j)
	add(t, j, "c", 3)
	want := map[string]int64{"c": 3}
	b, err := j.Write(func(yield func(Record) bool) {
		for i := range 40_000 {
			key := fmt.Sprintf("%040d", i)
			want[key] = int64(i) + 1
			if !yield(Record{Key: key, Hits: int64(i) + 1, Aside: i == 7}) {
				return
			}
		}
	}, first, second)
	if err != nil {
		t.Fatal(err)
	}
	if b.ID == first.ID || b.ID == second.ID {
		t.Error("an id is used again")
	}
	closed(t, j)
	j, batches := opened(t, dir)
	defer closed(t, j)
	check(t, batches, 1, want)
	for _, r := range batches[0].Records {
		if r.Aside != (r.Key == fmt.Sprintf("%040d", 7)) {
			t.Errorf("%s: set aside is %v", r.Key, r.Aside)
		}
	}
	if n := len(files(t, dir)); n > 3 {
		t.Errorf("there are %d files, want the batch, the live one, and the one after it", n)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	j, _ := opened(t, dir)
	_, _, err := Open(dir, func(string) {})
	if want := "journal " + dir + ": the directory is in use by another pixel-ping"; err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
	closed(t, j)
	j, _ = opened(t, dir)
	closed(t, j)
}

func TestWhatIsNotTheJournals(t *testing.T) {
	dir := t.TempDir()
	const id = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for _, name := range []string{"README", id, id + ".hits.gz", "x" + id + ".hits", strings.ToLower(id) + ".hits"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, id+".hits"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, strings.ReplaceAll(id, "A", "2")+".hits")); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	var told []string
	j, batches, err := Open(dir, func(line string) { told = append(told, line) })
	if err != nil {
		t.Fatal(err)
	}
	check(t, batches, 0, map[string]int64{})
	closed(t, j)
	told = slices.DeleteFunc(told, func(line string) bool {
		return !strings.HasSuffix(line, "is not a file of the journal and is left alone")
	})
	if len(told) != len(before) {
		t.Errorf("told %d lines of %d files: %q", len(told), len(before), told)
	}
	if after := files(t, dir); !slices.Equal(after, before) {
		t.Errorf("%v has become %v", before, after)
	}
}

// The files of a crash loop become one.
func TestUnsentFilesAreMerged(t *testing.T) {
	dir := t.TempDir()
	want := map[string]int64{}
	j, _ := opened(t, dir)
	for i := range 300 {
		key := fmt.Sprint(i % 7)
		if _, err := j.Write(slices.Values([]Record{{key, 1, false}})); err != nil {
			t.Fatal(err)
		}
		want[key]++
	}
	closed(t, j)
	for range 2 {
		j, batches := opened(t, dir)
		check(t, batches, 1, want)
		closed(t, j)
		if left := files(t, dir); len(left) != 1 {
			t.Errorf("%d files are left, want 1", len(left))
		}
	}
}

// Counts are added to while others are frozen, written and removed.
func TestConcurrency(t *testing.T) {
	dir := t.TempDir()
	j, _ := opened(t, dir)
	var mu sync.Mutex
	counts := map[string]*int64{}
	var recording sync.WaitGroup
	const goroutines, each = 4, 20_000
	for g := range goroutines {
		recording.Go(func() {
			for i := range each {
				key := fmt.Sprint(g, i%1000)
				mu.Lock()
				if n := counts[key]; n != nil {
					*n++
				} else if n, err := j.Add(key, 1); err != nil {
					one := int64(1)
					counts[key] = &one
				} else {
					counts[key] = n
				}
				mu.Unlock()
			}
		})
	}
	var sum int64
	flush := func() {
		j.Prepare()
		mu.Lock()
		b, taken := j.Take(), counts
		counts = map[string]*int64{}
		mu.Unlock()
		var records []Record
		for key, n := range taken {
			records = append(records, Record{Key: key, Hits: *n})
			sum += *n
		}
		if b == nil {
			return
		}
		merged, err := j.Write(slices.Values(records), b)
		if err != nil {
			t.Error(err)
			return
		}
		if err := merged.SetProgress(Progress{Sent: true}); err != nil {
			t.Error(err)
		}
		if err := merged.Remove(); err != nil {
			t.Error(err)
		}
	}
	done := make(chan struct{})
	go func() { recording.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		flush()
	}
	if sum != goroutines*each {
		t.Errorf("%d hits, want %d", sum, goroutines*each)
	}
	closed(t, j)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// Hits go on while the disk does nothing. None waits for it longer than 5 ms.
func TestNoHitWaitsForTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		release := make(chan struct{})
		before := func(string) error {
			if hangs.Load() {
				<-release
			}
			return nil
		}
		j, _, err := open(t.TempDir(), func(line string) { t.Errorf("told: %s", line) }, before)
		if err != nil {
			t.Fatal(err)
		}
		j.Prepare()
		hangs.Store(true)
		start := time.Now()
		refused := 0
		for i := range 3 * chunkSize / 32 {
			if _, err = j.Add(fmt.Sprintf("key %07d", i), 1); err != nil {
				refused++
			}
		}
		j.Take()
		if n, err := j.Add("a", 1); err != nil || *n != 1 {
			t.Errorf("the next file can not be used: %v", err)
		}
		// The clock of the bubble advances only while Add waits.
		if waited := time.Since(start); waited > 5*time.Millisecond {
			t.Errorf("hits wait for %v", waited)
		}
		if want := "journal " + j.path + ": the disk is too slow"; refused == 0 || err.Error() != want {
			t.Errorf("%d keys find no room: %v, want %s", refused, err, want)
		}
		close(release)
		closed(t, j)
	})
}

// New keys, with the longest that one of them has waited.
func BenchmarkAdd(b *testing.B) {
	j, _ := opened(b, b.TempDir())
	defer closed(b, j)
	var longest time.Duration
	without := 0
	for i := 0; b.Loop(); i++ {
		key := fmt.Sprintf("https://www.example.com/articles/%d", i)
		start := time.Now()
		_, err := j.Add(key, 1)
		longest = max(longest, time.Since(start))
		if err != nil {
			without++
		}
	}
	b.ReportMetric(float64(longest)/1e6, "ms-longest")
	b.ReportMetric(float64(without), "keys-without-room")
}

// A live file whose process was killed keeps its id and progress when the process that
// sends it is killed as well. A copy of the directory is what a kill leaves.
func TestLiveFileIsSentAndRecovered(t *testing.T) {
	killed := func(dir string) string {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ; {
			left := filepath.Join(t.TempDir(), "journal")
			err := os.CopyFS(left, os.DirFS(dir))
			if err == nil {
				return left
			}
			// The journal makes its next file meanwhile, and renames it under the copy.
			if !errors.Is(err, fs.ErrNotExist) || time.Now().After(limit) {
				t.Fatal(err)
			}
		}
	}
	dir := t.TempDir()
	first, _ := opened(t, dir)
	defer closed(t, first)
	add(t, first, "a", 1)
	add(t, first, "b", 2)

	dir = killed(dir)
	second, batches := opened(t, dir)
	defer closed(t, second)
	if len(batches) != 1 {
		t.Fatalf("%d batches are recovered, want 1", len(batches))
	}
	want := Progress{Sent: true, First: 1, End: 2}
	if err := batches[0].SetProgress(want); err != nil {
		t.Fatal(err)
	}

	third, again := opened(t, killed(dir))
	defer closed(t, third)
	if len(again) != 1 || again[0].ID != batches[0].ID || again[0].Progress != want || len(again[0].Records) != 2 {
		t.Errorf("%d batches are recovered, %+v, want one with the id %s and %+v", len(again), again, batches[0].ID, want)
	}
}
