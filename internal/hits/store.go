package hits

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pixel-ping/internal/journal"
	"pixel-ping/internal/stats"
)

const (
	// maxOut is how many batches may be out: one that is refused again and again, and the one behind it.
	maxOut = 2
	// asideShare says how much the keys that the application refuses may take: one part in so many of the memory for
	// keys. So clients who send such keys leave room for others.
	asideShare = 8
	// asideTime is how long keys are set aside before they are sent again, as applications change.
	asideTime = time.Hour
)

// Counts maps each key to its number of hits, at least 1. The number is behind a pointer, as an assignment for a known
// key would also put the key of the request into the map, and keep the memory of the request alive.
type Counts map[string]*int64

// A Store counts hits, and holds the batches that are not delivered yet. A count is in exactly one place: it is
// being counted, in one batch, or set aside.
// The original's store is a JavaScript object without a limit. It never counts the key __proto__, and the count of
// constructor begins with source code; here they are keys like any other.
//
// Many goroutines may call Record, Full, Stats, Keeps and JournalError at once. One goroutine calls the other methods.
type Store struct {
	Recovered []Count // what Open has found, sorted by the bytes of the keys

	limit   int64         // bytes that live and loose may take
	full    chan struct{} // receives a value when there is no more room
	journal *journal.Journal

	failing  sync.Mutex
	failures []error // what went wrong in the journal, and was not returned by JournalError yet

	mu      sync.Mutex
	live    Counts     // what was counted since the last batch; with a journal, what is in its live file
	loose   Counts     // with a journal, what is in memory only
	faulty  bool       // the live file had a fault: live does not change any more, and hits go to loose
	held    int64      // the cost of live and loose, in bytes
	counted int64      // the hits of live and loose
	out     int64      // the cost of what is left of the batches
	stats   stats.Hits // Pending and Keys are only of what is left of the batches
	asked   bool       // full was sent a value, and no batch was delivered since

	aside     Counts    // keys that the application refuses
	asideHeld int64     // their cost, in bytes
	since     time.Time // when the first of them was set aside

	batches []*Batch // those that are out, in the order in which they were sealed
	memo    any      // of the batch that was merged back last
}

// NewStore returns an empty Store. Keys that are counted may take limit bytes, and all that are held twice that.
func NewStore(limit int64) *Store {
	return &Store{limit: limit, full: make(chan struct{}, 1), live: make(Counts), aside: make(Counts)}
}

// Open returns a Store as NewStore does. Unless dir is empty, the Store keeps its counts in the journal in that
// directory, and goes on with those that an earlier process left there. See journal.Open for tell and for errors.
func Open(limit int64, dir string, tell func(line string)) (*Store, error) {
	s := NewStore(limit)
	if dir == "" {
		return s, nil
	}
	j, live, sealed, err := journal.Open(dir, tell)
	if err != nil {
		return nil, err
	}
	s.journal, s.live, s.loose = j, live, make(Counts)
	recovered := s.read(s.live)
	s.held, s.counted = cost(recovered...), Sum(recovered)
	for _, file := range sealed {
		b := s.newBatch(file.Records, file)
		b.Progress, file.Records = file.Progress, nil
		b.Trim()
		s.register(0, 0, 0, b)
	}
	s.Recovered = s.List()
	return s, nil
}

// SealRecovered makes a batch of what Open has found, before hits are recorded. If the disk was read-only, an earlier
// process may have sent it as a whole, and could not store that. So no hit comes to it, and it is sent as a whole.
func (s *Store) SealRecovered() {
	if len(s.live) > 0 && len(s.batches) < maxOut+1 { // so that there are no more than five files
		s.Seal(nil, true)
	}
	for _, b := range s.batches {
		if !b.Sent {
			b.End = len(b.List)
		}
	}
}

// register adds batches to those that are out. They replace keys, hits and bytes that count as out already.
func (s *Store) register(keys, hits, bytes int64, batches ...*Batch) {
	s.batches = append(s.batches, batches...)
	keys, hits, bytes = -keys, -hits, -bytes
	for _, b := range batches {
		left := b.Left()
		keys, hits, bytes = keys+int64(len(left)), hits+Sum(left), bytes+cost(left...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Keys += keys
	s.stats.Pending += hits
	s.out += bytes
}

// gone subtracts a list, which is done with, from what counts as out.
func (s *Store) gone(list []Count) { s.register(int64(len(list)), Sum(list), cost(list...)) }

// Record adds a hit to key (the original's record). It stores a new key as a copy, and allocates nothing for a known
// one. If there is no room for a new key, Record refuses the hit, and sends a value to Full: once until a delivery.
func (s *Store) Record(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.known(key, 1) {
		held := s.held + cost(Count{Key: key})
		if held > s.limit || held+s.out > 2*s.limit {
			s.stats.Refused++
			if !s.asked && s.held > 0 { // While the application is down, Full would receive at each hit.
				s.asked = true
				select {
				case s.full <- struct{}{}:
				default:
				}
			}
			return
		}
		s.insert(strings.Clone(key), 1)
	}
	s.counted++
	s.stats.Recorded++
}

// known adds hits to a key that is counted, and reports whether it is.
func (s *Store) known(key string, hits int64) bool {
	n := s.live[key]
	if s.journal != nil {
		if n != nil && !s.faulty {
			if journal.Add(n, hits) {
				return true
			}
			s.fault(s.journal.Fault())
		}
		n = s.loose[key]
	}
	if n != nil {
		*n += hits
	}
	return n != nil
}

// insert adds a new key, in memory only if the journal has no room.
func (s *Store) insert(key string, hits int64) {
	s.held += cost(Count{Key: key})
	if s.journal == nil {
		s.live[key] = &hits
		return
	}
	if !s.faulty {
		n, err := s.journal.Add(key, hits)
		if err == nil {
			s.live[key] = n
			return
		}
		s.fault(err)
	}
	s.loose[key] = &hits
}

// fault notes why hits are not in the journal. After a fault in the mapped memory, no hit goes to a file any more.
func (s *Store) fault(err error) {
	s.fail(err, "new keys are counted in memory only, and are lost if the process is killed")
	s.faulty = errors.Is(err, journal.ErrFault)
}

// Full returns a channel that receives a value when there is no more room for new keys.
func (s *Store) Full() <-chan struct{} { return s.full }

// Stats returns what the Store counts.
func (s *Store) Stats() stats.Hits {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.stats
	all.Pending += s.counted
	all.Keys += int64(len(s.live) + len(s.loose))
	return all
}

// Keeps reports whether the Store has a journal.
func (s *Store) Keeps() bool { return s.journal != nil }

// JournalError returns the oldest error of the journal that it has not returned yet, or nil.
func (s *Store) JournalError() (err error) {
	s.failing.Lock()
	defer s.failing.Unlock()
	if len(s.failures) > 0 {
		err, s.failures = s.failures[0], s.failures[1:]
	}
	return err
}

// fail notes an error, unless err is nil, for JournalError.
func (s *Store) fail(err error, consequence string) {
	if err == nil {
		return
	}
	err = fmt.Errorf("%w; %s", err, consequence)
	s.failing.Lock()
	defer s.failing.Unlock()
	if !slices.ContainsFunc(s.failures, func(other error) bool { return other.Error() == err.Error() }) {
		s.failures = append(s.failures, err)
	}
}

// List returns a copy of the counts, sorted by the bytes of their keys. A hit that comes meanwhile may be missing.
func (s *Store) List() []Count {
	const atOnce = 500
	all := make([]Count, 0, s.Stats().Keys+atOnce)
	for _, b := range s.batches {
		all = append(all, b.Left()...)
	}
	s.mu.Lock()
	for _, counts := range []Counts{s.live, s.loose} {
		seen := 0
		for key, n := range counts {
			if hits, ok := journal.Load(n); ok {
				all = append(all, Count{Key: key, Hits: hits})
			}
			if seen++; seen%atOnce == 0 { // Hits are recorded meanwhile.
				s.mu.Unlock()
				all = slices.Grow(all, atOnce)
				s.mu.Lock()
			}
		}
	}
	s.mu.Unlock()
	return merged(all)
}

// merged sorts a list by the bytes of the keys, and adds up the counts of the same key.
func merged(list []Count) []Count {
	slices.SortFunc(list, byKey)
	n := 0
	for _, count := range list {
		if n > 0 && list[n-1].Key == count.Key {
			list[n-1].Hits += count.Hits
			continue
		}
		list[n] = count
		n++
	}
	return list[:n]
}

// Batch returns batch i of those that are out, of which 0 is the oldest, or nil if there are not so many.
func (s *Store) Batch(i int) *Batch {
	if i >= len(s.batches) {
		return nil
	}
	return s.batches[i]
}

// Seal makes a batch of what was counted since the last one (the original's reset), and another one of what is in
// memory only though there is a journal. They go out behind the others, unless two are out and always is false. Hits
// are recorded meanwhile: they wait only for the exchange of the maps.
// Keys that are set aside already do not go out: Seal calls setAside with them, which calls SetAside.
func (s *Store) Seal(setAside func(list []Count), always bool) {
	if len(s.batches) >= maxOut && !always {
		return
	}
	if s.journal != nil {
		s.journal.Prepare()
	}
	s.mu.Lock()
	live, loose, file := s.live, s.loose, (*journal.File)(nil)
	if s.journal != nil {
		file, s.loose = s.journal.Seal(), make(Counts)
	}
	keys, hits, bytes := int64(len(live)+len(loose)), s.counted, s.held
	s.live, s.counted, s.held = make(Counts), 0, 0
	s.stats.Keys += keys
	s.stats.Pending += hits
	s.out += bytes // at once: hits that are recorded while the keys are sorted take room, too
	s.mu.Unlock()
	first, second := s.seal(live, file, setAside), s.seal(loose, nil, setAside)
	s.register(keys, hits, bytes, first, second)
	for _, b := range []*Batch{first, second} {
		if len(b.List) == 0 {
			s.Forget(b)
		} else {
			b.Memo, s.memo = s.memo, nil
		}
	}
}

// seal makes a batch of counts. file is the journal's file that has them, or nil.
func (s *Store) seal(counts Counts, file *journal.File, setAside func(list []Count)) *Batch {
	var aside []Count
	list := slices.DeleteFunc(s.read(counts), func(count Count) bool {
		if s.aside[count.Key] == nil {
			return false
		}
		aside = append(aside, count)
		return true
	})
	if len(aside) > 0 {
		// The file must not have them when its first POST is made: the same id always comes with the same counts.
		setAside(aside)
		for _, count := range aside {
			journal.Add(counts[count.Key], -count.Hits)
		}
	}
	return s.newBatch(list, file)
}

// read returns the counts sorted by the bytes of their keys, which is the order in which they are logged and sent. It
// may read a file. (The original has JavaScript's order: integer-like keys first, then the others by their first hit.)
func (s *Store) read(counts Counts) []Count {
	list, lost := make([]Count, 0, len(counts)), 0
	for key, n := range counts {
		if hits, ok := journal.Load(n); ok && hits > 0 {
			list = append(list, Count{Key: key, Hits: hits})
		} else {
			lost++
		}
	}
	if lost > 0 {
		s.fail(s.journal.Fault(), fmt.Sprintf("the hits of %d keys are lost", lost))
	}
	slices.SortFunc(list, byKey)
	return list
}

// Forget ends the use of a batch, which is delivered or dropped.
func (s *Store) Forget(b *Batch) {
	b.Finish(len(b.List))
	s.batches = slices.DeleteFunc(s.batches, func(other *Batch) bool { return other == b })
	if b.file != nil {
		s.fail(b.file.Remove(), "a batch that is done with can not be deleted, and may be sent again after a start")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = s.asked && len(b.List) == 0
}

// Merge adds what is left of a batch to the counts since then (the original's merge), even if there is no room. The
// batch is in no journal, and not in doubt. Merge locks for each key anew, so that hits are recorded meanwhile.
func (s *Store) Merge(b *Batch) {
	s.memo = cmp.Or(b.Memo, s.memo)
	s.batches = slices.DeleteFunc(s.batches, func(other *Batch) bool { return other == b })
	for _, count := range b.Left() {
		s.mu.Lock()
		s.stats.Keys--
		s.stats.Pending -= count.Hits
		s.out -= cost(count)
		s.counted += count.Hits
		if !s.known(count.Key, count.Hits) {
			s.insert(count.Key, count.Hits)
		}
		s.mu.Unlock()
	}
	b.First = len(b.List)
}

// SetAside holds counts that the application refuses. It drops hits for which there is no room, and says how many.
func (s *Store) SetAside(list []Count) (dropped int64) {
	if len(s.aside) == 0 {
		s.since = time.Now()
	}
	for _, count := range list {
		held := s.asideHeld + cost(count)
		switch n := s.aside[count.Key]; {
		case n != nil:
			*n += count.Hits
		case held > s.limit/asideShare:
			dropped += count.Hits
		default:
			s.aside[count.Key], s.asideHeld = &count.Hits, held
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Aside += Sum(list) - dropped
	s.stats.Dropped += dropped
	return dropped
}

// Retry merges the keys that are set aside with the others, if an hour has passed.
func (s *Store) Retry() {
	if len(s.aside) > 0 && time.Since(s.since) >= asideTime {
		s.Merge(s.SealAside())
	}
}

// SealAside makes a batch of the keys that are set aside, and sets them aside no longer. It returns nil for none.
func (s *Store) SealAside() *Batch {
	if len(s.aside) == 0 {
		return nil
	}
	b := s.newBatch(s.read(s.aside), nil)
	s.register(0, 0, 0, b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside, s.asideHeld, s.stats.Aside = make(Counts), 0, 0
	return b
}

// Doubtful returns how many hits the application may have saved, of those in the journal or of those in memory only.
func (s *Store) Doubtful(kept bool) (n int64) {
	for _, b := range s.batches {
		if b.Doubt && (b.Kept() && !b.file.Lost()) == kept {
			n += Sum(b.Part())
		}
	}
	return n
}

// Close ends the use of the Store. It returns the counts that the journal keeps for the next process, and those
// that are lost, both sorted by the bytes of their keys. It is not called while hits are recorded.
func (s *Store) Close() (kept, lost []Count) {
	for _, b := range slices.Clone(s.batches) {
		if b.file == nil && !b.Doubt { // A batch in doubt would get another id in a file.
			s.Merge(b)
		}
	}
	last, unkept, file := s.read(s.live), []Count(nil), (*journal.File)(nil)
	for _, count := range s.read(s.loose) { // The journal may have room by now. Stats must not wait, so there is no lock.
		if s.journal.Patient = true; !s.faulty {
			_, err := s.journal.Add(count.Key, count.Hits)
			if s.fault(err); err == nil {
				last = append(last, count)
				continue
			}
		}
		unkept = append(unkept, count)
	}
	if s.journal != nil {
		file = s.journal.Seal()
		defer s.journal.Close()
	}
	for _, b := range append(s.batches, s.newBatch(last, file), s.newBatch(unkept, nil)) {
		if b.file != nil && !b.file.Lost() {
			kept = append(kept, b.Left()...)
		} else {
			lost = append(lost, b.Left()...)
		}
	}
	return merged(kept), merged(lost)
}
