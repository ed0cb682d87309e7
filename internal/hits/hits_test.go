package hits

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"pixel-ping/internal/stats"
)

// plenty is a limit that no test comes near.
const plenty = 1 << 40

// plain returns counts as numbers.
func plain(counts Counts) map[string]int64 {
	m := make(map[string]int64)
	for key, n := range counts {
		m[key] = *n
	}
	return m
}

func check(t *testing.T, counts Counts, want map[string]int64) {
	t.Helper()
	if got := plain(counts); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The order is that of the bytes, whatever a key looks like.
func TestList(t *testing.T) {
	s := NewStore(plenty)
	for _, key := range []string{"b", "é", "10", "a", "9", "B", "b", "ab", "\x00", "😀"} {
		s.Record(key)
	}
	want := []Count{{"\x00", 1}, {"10", 1}, {"9", 1}, {"B", 1}, {"a", 1}, {"ab", 1}, {"b", 2}, {"é", 1}, {"😀", 1}}
	if got := s.Take().List(); !slices.Equal(got, want) {
		t.Errorf("listed as %v, want %v", got, want)
	}
}

func TestRecordAndTake(t *testing.T) {
	s := NewStore(plenty)
	check(t, s.Take(), nil)
	s.Record("a")
	s.Record("b")
	s.Record("b")
	taken := s.Take()
	check(t, taken, map[string]int64{"a": 1, "b": 2})
	if got := taken.Hits(); got != 3 {
		t.Errorf("%d hits, want 3", got)
	}
	check(t, s.Take(), nil)

	// The counts that were taken do not change any more.
	s.Record("a")
	check(t, taken, map[string]int64{"a": 1, "b": 2})
	check(t, s.Take(), map[string]int64{"a": 1})
}

func TestKeysOfJavaScriptObjects(t *testing.T) {
	s := NewStore(plenty)
	for _, key := range []string{"__proto__", "constructor", "toString", "__proto__"} {
		s.Record(key)
	}
	check(t, s.Take(), map[string]int64{"__proto__": 2, "constructor": 1, "toString": 1})
}

func TestMerge(t *testing.T) {
	for name, since := range map[string][]string{
		"nothing since":     nil,
		"less since":        {"b"},
		"more since":        {"b", "c", "d", "e", "b"},
		"other keys since":  {"x", "y"},
		"the same keys":     {"a", "b"},
		"many of one since": {"a", "a", "a"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewStore(plenty)
			want := map[string]int64{"a": 1, "b": 2}
			for _, key := range []string{"a", "b", "b"} {
				s.Record(key)
			}
			taken := s.Take()
			for _, key := range since {
				s.Record(key)
				want[key]++
			}
			s.Merge(taken)
			check(t, s.Take(), want)
		})
	}
}

func TestKeysAreCopied(t *testing.T) {
	s := NewStore(plenty)
	request := []byte("abc")
	for range 2 {
		copy(request, "abc")
		s.Record(unsafe.String(&request[0], len(request)))
		copy(request, "xyz")
	}
	check(t, s.Take(), map[string]int64{"abc": 2})
}

func TestKnownKeysCostNoAllocation(t *testing.T) {
	s := NewStore(plenty)
	s.Record("a")
	if allocs := testing.AllocsPerRun(100, func() { s.Record("a") }); allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// full reports whether s has asked for a flush since it was last called.
func full(s *Store) bool {
	select {
	case <-s.Full():
		return true
	default:
		return false
	}
}

func TestLimit(t *testing.T) {
	s := NewStore(2 * Cost("a"))
	s.Record("a")
	s.Record("b")
	if full(s) {
		t.Error("a flush is asked for before the limit is reached")
	}
	s.Record("c")
	s.Record("d")
	s.Record("a")
	if !full(s) || full(s) {
		t.Error("a flush is not asked for once")
	}
	if got := s.Refused(); got != 2 {
		t.Errorf("%d hits are refused, want 2", got)
	}
	if got := s.Refused(); got != 0 {
		t.Errorf("%d hits are refused, want 0", got)
	}

	// While the batch is out, there is room for as much again, and no more.
	taken := s.Take()
	check(t, taken, map[string]int64{"a": 2, "b": 1})
	if got := s.Pending(); got != 3 {
		t.Errorf("%d hits are pending, want 3", got)
	}
	for _, key := range []string{"a", "e", "f"} {
		s.Record(key)
	}

	// Merge refuses nothing, and no flush is asked for until one makes room.
	s.Merge(taken)
	s.Record("f")
	s.Record("b")
	if full(s) {
		t.Error("a flush is asked for again, though the last one made no room")
	}
	taken = s.Take()
	check(t, taken, map[string]int64{"a": 3, "b": 2, "e": 1})

	// Three keys are out, so there is room for one more.
	s.Record("g")
	s.Record("h")
	s.Merge(nil)
	check(t, s.Take(), map[string]int64{"g": 1})
	s.Merge(nil)
	if got := s.Refused(); got != 3 {
		t.Errorf("%d hits are refused, want 3", got)
	}

	// There is room again. When it is used up, a flush is asked for again.
	for _, key := range []string{"a", "b", "c"} {
		s.Record(key)
	}
	if got, want := s.Stats(), (stats.Hits{Recorded: 9, Refused: 6, Pending: 2, Keys: 2}); got != want {
		t.Errorf("the store has counted %+v, want %+v", got, want)
	}
	if !full(s) {
		t.Error("a flush is not asked for")
	}
}

// While a batch is out, its keys go on counting even if there is no room for new
// keys.
func TestKeysOfTheBatchGoOnCounting(t *testing.T) {
	s := NewStore(8 * Cost("a0"))
	for i := range 8 {
		s.Record(fmt.Sprint("a", i))
	}
	taken := s.Take()
	for i := range 9 {
		s.Record(fmt.Sprint("b", i))
	}
	s.Record("a0")
	s.Record("a1")
	if got := s.Refused(); got != 1 {
		t.Errorf("%d hits are refused, want 1", got)
	}
	if got := s.Pending(); got != 18 {
		t.Errorf("%d hits are pending, want 18", got)
	}
	s.Merge(taken)
	if got := s.Take(); *got["a0"] != 2 || *got["a1"] != 2 || got.Hits() != 18 {
		t.Errorf("%d hits of a0 and %d of a1 are held, want 2 and 2", *got["a0"], *got["a1"])
	}
	s.Merge(nil)
	if got := s.Pending(); got != 0 {
		t.Errorf("%d hits are pending, want none", got)
	}
}

// A key that is longer than the limit does not cause flushes.
func TestKeyThatIsTooLong(t *testing.T) {
	s := NewStore(200)
	s.Record(strings.Repeat("x", 200))
	if full(s) || s.Refused() != 1 {
		t.Error("a flush is asked for that can make no room")
	}
}

// Merged keys take their room again, whether they are more or fewer than the keys
// recorded since.
func TestLimitAfterAMerge(t *testing.T) {
	for name, since := range map[string]int{"less since": 1, "more since": 3} {
		s := NewStore(4 * Cost("a1"))
		for i := range 4 - since {
			s.Record(fmt.Sprint("a", i))
		}
		taken := s.Take()
		for i := range since {
			s.Record(fmt.Sprint("b", i))
		}
		s.Merge(taken)
		s.Record("c0")
		if got := s.Refused(); got != 1 {
			t.Errorf("%s: there is room for a fifth key", name)
		}
		if got := len(s.Take()); got != 4 {
			t.Errorf("%s: %d keys are held, want 4", name, got)
		}
	}
}

// The limit is in bytes: long keys take more of it than short ones.
func TestLimitCountsTheKeys(t *testing.T) {
	s := NewStore(1 << 20)
	for i := range 1000 {
		s.Record(fmt.Sprintf("%04d", i) + strings.Repeat("x", 10000))
	}
	if got := len(s.Take()); got < 90 || got > 110 {
		t.Errorf("%d keys of 10 kB in 1 MB", got)
	}
}

// No hit is lost or counted twice while another goroutine takes and merges.
func TestConcurrency(t *testing.T) {
	const goroutines, each = 8, 2000
	s := NewStore(plenty)
	var recording, flushing sync.WaitGroup
	for g := range goroutines {
		recording.Go(func() {
			for i := range each {
				s.Record(fmt.Sprint((g + i) % 50))
			}
		})
	}
	done := make(chan struct{})
	delivered := make(chan int64, 1)
	flushing.Go(func() {
		var sum int64
		for i := 0; ; i++ {
			taken := s.Take()
			if i%2 == 0 {
				s.Merge(taken)
			} else {
				sum += taken.Hits()
			}
			select {
			case <-done:
				delivered <- sum
				return
			default:
			}
		}
	})
	recording.Wait()
	close(done)
	flushing.Wait()
	if got := <-delivered + s.Take().Hits(); got != goroutines*each {
		t.Errorf("%d hits, want %d", got, goroutines*each)
	}
}

// What is left of a batch stays out: it takes its room, and the rest gives it back.
func TestKeep(t *testing.T) {
	s := NewStore(4 * Cost("a"))
	for _, key := range []string{"a", "b", "c", "d", "d"} {
		s.Record(key)
	}
	taken := s.Take()
	delete(taken, "a")
	delete(taken, "b")
	s.Keep(taken)
	if got := s.Pending(); got != 3 {
		t.Errorf("%d hits are pending, want 3", got)
	}
	for _, key := range []string{"e", "f", "g", "h"} {
		s.Record(key)
	}
	if got := s.Refused(); got != 0 {
		t.Errorf("%d hits are refused, want none", got)
	}
	s.Merge(taken)
	check(t, s.Take(), map[string]int64{"c": 1, "d": 2, "e": 1, "f": 1, "g": 1, "h": 1})
}
