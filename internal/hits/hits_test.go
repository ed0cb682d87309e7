package hits

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"pixel-ping/internal/stats"
)

// plenty is a limit that no test comes near.
const plenty = 1 << 40

func record(s *Store, keys ...string) {
	for _, key := range keys {
		s.Record(key)
	}
}

// seal seals what s has counted, and returns the youngest batch that is out, or nil. No key is set aside.
func seal(s *Store) (b *Batch) {
	s.Seal(func(list []Count) { panic(fmt.Sprint(list, " are set aside")) }, false)
	for i := 0; s.Batch(i) != nil; i++ {
		b = s.Batch(i)
	}
	return b
}

// sending says that the part of b that is under way is sent next.
func sending(t *testing.T, b *Batch) {
	t.Helper()
	if err := b.Sending(); err != nil {
		t.Error(err)
	}
}

// check compares a list with its text, such as "a=1 b=2".
func check(t *testing.T, list []Count, want string) {
	t.Helper()
	var got []string
	for _, count := range list {
		got = append(got, fmt.Sprintf("%s=%d", count.Key, count.Hits))
	}
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

// The order is that of the bytes, whatever a key looks like.
func TestList(t *testing.T) {
	s := NewStore(plenty)
	record(s, "b", "é", "10", "a", "9", "B", "b", "ab", "\x00", "😀")
	const want = "\x00=1 10=1 9=1 B=1 a=1 ab=1 b=2 é=1 😀=1"
	check(t, s.List(), want)
	check(t, seal(s).List, want)
	record(s, "b")
	check(t, s.List(), strings.Replace(want, "b=2", "b=3", 1))
}

func TestRecordAndSeal(t *testing.T) {
	s := NewStore(plenty)
	if seal(s) != nil {
		t.Error("there is a batch of nothing")
	}
	record(s, "a", "b", "b")
	b := seal(s)
	check(t, b.List, "a=1 b=2")

	// What was sealed does not change any more.
	record(s, "a")
	check(t, b.List, "a=1 b=2")
	s.Forget(b)
	check(t, seal(s).List, "a=1")
}

func TestKeysOfJavaScriptObjects(t *testing.T) {
	s := NewStore(plenty)
	record(s, "__proto__", "constructor", "toString", "__proto__")
	check(t, seal(s).List, "__proto__=2 constructor=1 toString=1")
}

func TestMerge(t *testing.T) {
	for since, want := range map[string]string{
		"":          "a=1 b=2",
		"b":         "a=1 b=3",
		"b c d e b": "a=1 b=4 c=1 d=1 e=1",
		"x y":       "a=1 b=2 x=1 y=1",
		"a b":       "a=2 b=3",
		"a a a":     "a=4 b=2",
	} {
		s := NewStore(plenty)
		record(s, "a", "b", "b")
		b := seal(s)
		b.Memo = "remembered"
		record(s, strings.Fields(since)...)
		s.Merge(b)
		if s.Batch(0) != nil || !b.Done() {
			t.Error("the batch is still there")
		}
		before := s.Stats()
		b = seal(s)
		check(t, b.List, want)
		if b.Memo != "remembered" || s.Stats() != before {
			t.Errorf("%q and %+v are known of the next batch, before %+v", b.Memo, s.Stats(), before)
		}
	}
}

// What is accepted or set aside of a batch is done with, and the rest is merged.
func TestMergeOfARest(t *testing.T) {
	s := NewStore(plenty)
	record(s, "a", "bb", "ccc", "dddd")
	b := seal(s)
	b.Begin(0, 1)
	b.Accepted()
	b.Finish(2)
	check(t, b.Left(), "ccc=1 dddd=1")
	record(s, "a")
	s.Merge(b)
	check(t, s.List(), "a=1 ccc=1 dddd=1")
	if got, want := s.Stats(), (stats.Hits{Recorded: 5, Pending: 3, Keys: 3, DeliveredHits: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// Positions are those of all keys, smallest first. The id of a part is that of its positions.
func TestParts(t *testing.T) {
	s := NewStore(plenty)
	record(s, "b", "a", "%", "longer")
	b := seal(s)
	b.Begin(0, 4)
	check(t, b.Part(), "%=1 a=1 b=1 longer=1")
	whole := b.PartID()
	b.Begin(0, 2) // a and b; % takes three bytes
	check(t, b.Part(), "a=1 b=1")
	if got := b.PartID(); got != whole+".0-2" {
		t.Errorf("the id is %s, want %s.0-2", got, whole)
	}
	b.Accepted()
	b.Begin(3, 4) // out of turn
	check(t, b.Part(), "longer=1")
	b.Doubt = true
	b.Accepted()
	check(t, b.Left(), "%=1")
	if b.First != 2 || b.Skip != 3 || b.Doubt {
		t.Errorf("the progress is %+v, in doubt %v", b.Progress, b.Doubt)
	}
	b.Begin(2, 3)
	b.Accepted()
	if !b.Done() || b.Skip != 0 || s.Stats().Pending != 0 {
		t.Errorf("the progress is %+v, and %+v are held", b.Progress, s.Stats())
	}
}

// Two batches are out at most, but for the last one at a stop.
func TestTwoBatchesAreOut(t *testing.T) {
	s := NewStore(plenty)
	record(s, "a")
	first := seal(s)
	record(s, "b")
	second := seal(s)
	record(s, "c")
	if seal(s) != second || s.Batch(0) != first || s.Batch(1) != second || s.Batch(2) != nil {
		t.Error("another batch than the first two is out")
	}
	s.Forget(first)
	check(t, seal(s).List, "c=1")
	record(s, "d")
	s.Seal(nil, true)
	check(t, s.Batch(2).List, "d=1")
}

func TestKeysAreCopied(t *testing.T) {
	s := NewStore(plenty)
	request := []byte("abc")
	for range 2 {
		copy(request, "abc")
		s.Record(unsafe.String(&request[0], len(request)))
		copy(request, "xyz")
	}
	check(t, seal(s).List, "abc=2")
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
	s := NewStore(2 * cost(Count{Key: "a"}))
	refused := func(want int64) {
		t.Helper()
		if got := s.Stats().Refused; got != want {
			t.Errorf("%d hits are refused, want %d", got, want)
		}
	}
	record(s, "a", "b")
	if full(s) {
		t.Error("a flush is asked for before the limit is reached")
	}
	record(s, "c", "d", "a")
	if !full(s) || full(s) {
		t.Error("a flush is not asked for once")
	}
	refused(2)

	// While a batch is out, there is room for as much again, and no more.
	b := seal(s)
	record(s, "a", "e", "f")
	refused(3)

	// Merge refuses nothing, and no flush is asked for until a batch is delivered.
	s.Merge(b)
	check(t, s.List(), "a=3 b=1 e=1")
	record(s, "f", "b")
	refused(4)
	if full(s) {
		t.Error("a flush is asked for again, though the last one made no room")
	}

	// Three keys are out, so there is room for one more.
	b = seal(s)
	record(s, "g", "h")
	refused(5)
	s.Forget(b)
	record(s, "h", "i")
	refused(6)
	if !full(s) {
		t.Error("a flush is not asked for")
	}
	if got, want := s.Stats(), (stats.Hits{Recorded: 8, Refused: 6, Pending: 2, Keys: 2}); got != want {
		t.Errorf("the store has counted %+v, want %+v", got, want)
	}
}

// Keys that are done with take no memory once their batch is trimmed, and change nothing of what is left.
func TestTrim(t *testing.T) {
	s := NewStore(plenty)
	record(s, "a", "bb", "ccc", "dddd")
	b := seal(s)
	whole := b.Left()
	b.Begin(2, 3)
	b.Accepted()
	b.Finish(1)
	b.Trim()
	check(t, whole, "a=1 bb=1 ccc=1 dddd=1")
	check(t, b.Left(), "bb=1 dddd=1")
	if b.List[0].Key != "" {
		t.Errorf("the batch holds the key %q", b.List[0].Key)
	}
	b.Finish(3)
	b.Trim()
	check(t, b.Left(), "dddd=1")
	if size := b.Size(3); size != int64(len("%22dddd%22%3A1%2C")) {
		t.Errorf("the last key has the size %d", size)
	}
	s.Merge(b)
	check(t, s.List(), "dddd=1")
	if got, want := s.Stats(), (stats.Hits{Recorded: 4, Pending: 1, Keys: 1, DeliveredHits: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// Counts that are sealed take room, and are pending, while their keys are sorted, too. Seal calls its function then.
func TestLimitWhileSealing(t *testing.T) {
	s := NewStore(8 * cost(Count{Key: "a"}))
	fill := func(first, last byte) {
		for key := first; key <= last; key++ {
			s.Record(string(key))
		}
	}
	fill('a', 'h')
	b := seal(s)
	fill('i', 'p')
	s.Merge(b)
	s.SetAside([]Count{{Key: "h", Hits: 1}}) // so that Seal finds it among the counts
	before := s.Stats()
	called := false
	s.Seal(func([]Count) {
		called = true
		if got := s.Stats(); got != before {
			t.Errorf("the store has counted %+v, want %+v", got, before)
		}
		if fill('q', 'q'); s.Stats().Refused != 1 {
			t.Error("a key is counted, though twice the limit is taken")
		}
	}, false)
	if !called {
		t.Error("the function was not called")
	}
	if got, want := s.Stats(), (stats.Hits{Recorded: 16, Refused: 1, Pending: 15, Keys: 15, Aside: 1}); got != want {
		t.Errorf("the store has counted %+v, want %+v", got, want)
	}
}

// A key that is longer than the limit does not cause flushes.
func TestKeyThatIsTooLong(t *testing.T) {
	s := NewStore(200)
	s.Record(strings.Repeat("x", 200))
	if full(s) || s.Stats().Refused != 1 {
		t.Error("a flush is asked for that can make no room")
	}
}

// The limit is in bytes: long keys take more of it than short ones.
func TestLimitCountsTheKeys(t *testing.T) {
	s := NewStore(1 << 20)
	for i := range 1000 {
		s.Record(fmt.Sprintf("%04d", i) + strings.Repeat("x", 10000))
	}
	if got := len(seal(s).List); got < 90 || got > 110 {
		t.Errorf("%d keys of 10 kB in 1 MB", got)
	}
}

// Keys that are set aside stay so in later batches, for an hour. They take an eighth of the limit.
func TestSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(16 * cost(Count{Key: "a"}))
		record(s, "a", "b", "c", "d")
		b := seal(s)
		if dropped := s.SetAside(b.Between(0, 3)); dropped != 1 {
			t.Errorf("%d hits are dropped, want those of the third key", dropped)
		}
		b.Finish(3)
		s.Forget(b)
		if got, want := s.Stats(), (stats.Hits{Recorded: 4, Aside: 2, Dropped: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}

		<-time.After(time.Hour - 1)
		s.Retry()
		record(s, "a", "c", "a")
		var aside []Count
		s.Seal(func(list []Count) { aside = append(aside, list...); s.SetAside(list) }, false)
		check(t, aside, "a=2")
		check(t, s.Batch(0).List, "c=1")
		if got, want := s.Stats(), (stats.Hits{Recorded: 7, Pending: 1, Keys: 1, Aside: 4, Dropped: 1}); got != want {
			t.Errorf("counted %+v, want %+v", got, want)
		}
		s.Forget(s.Batch(0))

		<-time.After(1)
		s.Retry()
		check(t, seal(s).List, "a=3 b=1")
		if s.SealAside() != nil {
			t.Error("keys are still set aside")
		}
		if dropped := s.SetAside(s.Batch(0).List); dropped > 0 {
			t.Errorf("%d hits are dropped, though there is room again", dropped)
		}
	})
}

// What the endpoint remembers of counts that were merged back outlasts the keys that are tried again in the same flush.
func TestRetryKeepsTheMemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStore(plenty)
		s.SetAside([]Count{{Key: "b", Hits: 1}})
		record(s, "a")
		b := seal(s)
		b.Memo = "remembered"
		s.Merge(b)
		<-time.After(time.Hour)
		s.Retry()
		if b = seal(s); b.Memo != "remembered" {
			t.Errorf("%v is remembered", b.Memo)
		}
		check(t, b.List, "a=1 b=1")
	})
}

// At a stop, what is set aside becomes a batch.
func TestSealAside(t *testing.T) {
	s := NewStore(plenty)
	s.SetAside([]Count{{Key: "a", Hits: 1}, {Key: "b", Hits: 2}})
	s.SetAside([]Count{{Key: "a", Hits: 1}})
	b := s.SealAside()
	check(t, b.List, "a=2 b=2")
	if got, want := s.Stats(), (stats.Hits{Pending: 4, Keys: 2}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	s.Forget(b)
	if got := s.Stats(); got != (stats.Hits{}) || s.out != 0 {
		t.Errorf("an empty store has counted %+v, and takes %d bytes", got, s.out)
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
			if b := seal(s); b != nil && i%2 == 0 {
				s.Merge(b)
			} else if b != nil {
				sum += Sum(b.List)
				s.Forget(b)
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
	if got := <-delivered + Sum(s.List()); got != goroutines*each {
		t.Errorf("%d hits, want %d", got, goroutines*each)
	}
}

// No hit waits while the goroutine that flushes handles many keys, for as long as that takes. Other work on the
// machine may hold up a hit now and then, but not each time.
func TestFlushLetsHitsIn(t *testing.T) {
	const keys, attempts = 200_000, 10
	var s *Store
	steps := []struct {
		name string
		do   func()
	}{
		{"list", func() { s.List() }},
		{"seal", func() { seal(s) }},
		{"part", func() { s.Batch(0).Begin(0, keys/2); s.Batch(0).Accepted() }},
		{"set aside", func() { s.SetAside(s.Batch(0).Left()); s.Forget(s.Batch(0)) }},
		{"seal what is set aside", func() { s.SealAside() }},
		{"merge", func() { s.Merge(s.Batch(0)) }},
	}
	passed := make(map[string]bool)
	for range attempts {
		s = NewStore(plenty)
		for i := range keys {
			s.Record(fmt.Sprint("key ", i))
		}
		for _, step := range steps {
			if longest, all := longestWait(s, step.do); longest <= all/2 {
				passed[step.name] = true
			}
		}
		if len(passed) == len(steps) {
			return
		}
	}
	t.Errorf("a hit waits for more than half of each step but %v", slices.Sorted(maps.Keys(passed)))
}

// longestWait returns how long a hit waits at most while do runs, and how long all of that takes.
func longestWait(s *Store, do func()) (longest, all time.Duration) {
	took := make(chan time.Duration)
	go func() {
		began := time.Now()
		do()
		took <- time.Since(began)
	}()
	for last := time.Now(); ; {
		s.Record("probe")
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		select {
		case all = <-took:
			return longest, all
		default:
		}
	}
}
