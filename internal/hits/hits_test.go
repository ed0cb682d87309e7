package hits

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"unsafe"
)

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

func TestRecordAndTake(t *testing.T) {
	var s Store
	check(t, s.Take(), nil)
	s.Record("a")
	s.Record("b")
	s.Record("b")
	taken := s.Take()
	check(t, taken, map[string]int64{"a": 1, "b": 2})
	if got := taken.Hits(); got != 3 {
		t.Errorf("%d hits, want 3", got)
	}
	if got := taken.Keys(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("keys %q, want a and b", got)
	}
	check(t, s.Take(), nil)

	// What was taken stays as it was.
	s.Record("a")
	check(t, taken, map[string]int64{"a": 1, "b": 2})
	check(t, s.Take(), map[string]int64{"a": 1})
}

func TestKeysOfJavaScriptObjects(t *testing.T) {
	var s Store
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
			var s Store
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
	var s Store
	request := []byte("abc")
	for range 2 {
		copy(request, "abc")
		s.Record(unsafe.String(&request[0], len(request)))
		copy(request, "xyz")
	}
	check(t, s.Take(), map[string]int64{"abc": 2})
}

func TestKnownKeysCostNoAllocation(t *testing.T) {
	var s Store
	s.Record("a")
	if allocs := testing.AllocsPerRun(100, func() { s.Record("a") }); allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}

// No hit is lost or counted twice while others take and merge.
func TestConcurrency(t *testing.T) {
	const goroutines, each = 8, 2000
	var s Store
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
