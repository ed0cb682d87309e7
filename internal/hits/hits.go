// Package hits holds the number of hits of each key between two flushes. It is
// the second step of a hit. The mutex of the Store is the only lock that the hits
// of different connections share.
package hits

import (
	"slices"
	"strings"
	"sync"

	"pixel-ping/internal/journal"
	"pixel-ping/internal/stats"
)

// Counts maps each key to its number of hits, at least 1. The number is behind a
// pointer so that Record need not assign to the map for a known key: the
// assignment would replace the key in the map by the key of the request, and
// keep the memory of the request alive.
//
// A Counts is not safe for concurrent use. It has one owner at a time: the Store,
// or whoever took it.
type Counts map[string]*int64

// Count is a key and its number of hits, at least 1.
type Count struct {
	Key  string
	Hits int64
}

// List returns the counts sorted by the bytes of their keys, which is the order
// in which they are logged and sent. (The original's order is that of JavaScript
// objects: integer-like keys first, then the others by their first hit.) The list
// is the caller's. To go through a list is much faster than to go through a map.
func (c Counts) List() []Count {
	list := make([]Count, 0, len(c))
	for key, n := range c {
		list = append(list, Count{key, *n})
	}
	slices.SortFunc(list, func(a, b Count) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// cost returns the memory that the keys take, in bytes.
func (c Counts) cost() int64 {
	var sum int64
	for key := range c {
		sum += Cost(key)
	}
	return sum
}

// Hits returns the number of hits of all keys.
func (c Counts) Hits() int64 {
	var sum int64
	for _, n := range c {
		sum += *n
	}
	return sum
}

// add adds the counts of other to those of c. It keeps no pointer of other, which may
// lead into a file that is unmapped later.
func (c Counts) add(other Counts) {
	for key, n := range other {
		if c[key] == nil {
			c[key] = new(int64)
		}
		*c[key] += *n
	}
}

// Store holds the counts that are not delivered yet (the original's store). Many
// goroutines may call its methods at once. There is one batch at a time: after
// Take, Merge must be called before the next Take. At any moment a count is in
// exactly one place: in the Store, or in the batch that was taken.
//
// The original's store is a JavaScript object. It never counts the key __proto__,
// and the count of constructor begins with source code; here they are keys like
// any other. The original's store has no limit, so that clients who invent keys
// use up the memory.
type Store struct {
	limit int64         // in bytes
	full  chan struct{} // receives a value when there is no more room

	mu      sync.Mutex
	counts  Counts
	held    int64 // the cost of counts, in bytes
	batch   part  // what was taken; the Store only looks up its keys
	out     int64 // the cost of batch, in bytes
	pending int64 // hits of counts and batch
	taken   int64 // hits of batch
	asked   bool  // full was sent a value, and no flush has made room since
	refused int64 // hits that were refused since the last call of Refused

	recorded    int64 // hits that were counted since the start
	everRefused int64 // hits that were refused before the last call of Refused

	// Only with a journal, see Open:
	journal *journal.Journal
	loose   Counts // new keys for which the journal had no room
	waiting []part // in the order in which they are taken; held and pending include their counts
	failure error  // what went wrong since the last call of JournalError

	// Aside has the keys that were refused alone, which Take marks in the files that
	// it writes. It belongs to whoever calls Take.
	Aside map[string]bool
}

// keyCost is the memory that a key takes beside its own bytes: its share of the
// map where that has just grown, the counter, and what allocations are rounded up by.
const keyCost = 128

// Cost returns the memory that a key takes, in bytes.
func Cost(key string) int64 { return int64(len(key)) + keyCost }

// NewStore returns an empty Store. Its keys may take limit bytes of memory, and
// those of a batch that was taken as much again. While a batch is out, its keys go
// on counting: they may take another quarter of limit, as the keys that are hit
// again during a flush are few.
func NewStore(limit int64) *Store {
	return &Store{limit: limit, full: make(chan struct{}, 1), counts: make(Counts)}
}

// Record adds a hit to key (the original's record). It does not keep key: it
// stores a new key as a copy, and allocates nothing for a known one. If there is
// no room for a new key, Record refuses the hit and sends a value to Full.
func (s *Store) Record(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[key]
	if n == nil && s.journal != nil {
		n = s.loose[key]
	}
	if n == nil {
		limit := s.limit
		if s.batch.counts[key] != nil {
			limit += limit / 4
		} else if s.isWaiting(key) {
			limit += limit // The key is held already, and its counts are added up at the next Take.
		}
		if held := s.held + Cost(key); held > limit || held+s.out > limit+s.limit {
			s.refuse()
			return
		}
		s.held += Cost(key)
		if s.journal != nil {
			s.pending++
			s.recorded++
			s.addKept(key)
			return
		}
		n = new(int64)
		s.counts[strings.Clone(key)] = n
	}
	*n++
	s.pending++
	s.recorded++
}

// refuse counts a refused hit, and asks for a flush through Full. It does not ask
// again until a flush has made room: while the application is down, it would ask
// at each hit.
func (s *Store) refuse() {
	s.refused++
	if !s.asked && s.held > 0 {
		s.asked = true
		select {
		case s.full <- struct{}{}:
		default:
		}
	}
}

// Full returns a channel that receives a value when the Store has no more room for
// new keys, so that a flush may make room.
func (s *Store) Full() <-chan struct{} { return s.full }

// Refused returns the number of hits that were refused since its last call.
func (s *Store) Refused() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := s.refused
	s.refused = 0
	s.everRefused += refused
	return refused
}

// Stats returns what the Store counts.
func (s *Store) Stats() stats.Hits {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := len(s.counts) + len(s.batch.counts) + len(s.loose)
	for _, p := range s.waiting {
		keys += len(p.counts)
	}
	return stats.Hits{
		Recorded: s.recorded,
		Refused:  s.everRefused + s.refused,
		Pending:  s.pending,
		Keys:     int64(keys),
	}
}

// Pending returns the number of hits in the Store and in the batch that was taken.
func (s *Store) Pending() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// List returns all counts, sorted by the bytes of their keys. It neither takes them
// nor keeps hits from being recorded; they may be in the list or not.
func (s *Store) List() []Count {
	sum := make(Counts)
	add := func(counts Counts) {
		for key, n := range counts {
			if sum[key] == nil {
				sum[key] = new(int64)
			}
			*sum[key] += *n
			if len(sum)%1000 == 0 {
				s.mu.Unlock()
				s.mu.Lock()
			}
		}
	}
	s.mu.Lock()
	add(s.counts)
	add(s.loose)
	for _, p := range s.waiting {
		add(p.counts)
	}
	s.mu.Unlock()
	return sum.List()
}

// Take empties the Store and returns the counts that it held (the original's
// reset). The caller may only read them, until it calls Merge. Take runs in
// constant time, so that no hit waits for a flush.
//
// With a journal, Take may write a file before it returns. Hits are recorded meanwhile.
// Take may leave counts in the Store for its next call: see Waiting.
func (s *Store) Take() Counts {
	if s.journal != nil {
		return s.takeKept()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch = part{counts: s.counts}
	s.counts = make(Counts)
	s.out, s.held = s.held, 0
	s.taken = s.pending
	return s.batch.counts
}

// Limit returns how many bytes of memory the keys may take.
func (s *Store) Limit() int64 { return s.limit }

// Keep says that left is all that is left of the batch that was taken: the rest
// was delivered. The batch stays out.
func (s *Store) Keep(left Counts) {
	hits, bytes := left.Hits(), left.cost()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch.rest = s.batch.rest || hits < s.taken
	s.pending -= s.taken - hits
	s.batch.counts, s.taken, s.out = left, hits, bytes
}

// Merge ends what Take began: it adds left, which is what is left of the batch,
// back to the Store, which then owns it (the original's merge). Merge refuses
// nothing, even if there is no room.
func (s *Store) Merge(left Counts) {
	s.Keep(left)
	if s.journal != nil {
		s.mergeKept()
		return
	}
	s.mu.Lock()
	s.taken, s.batch = 0, part{}
	bytes := s.out
	// Add the smaller map to the larger one.
	if len(s.counts) < len(left) {
		s.counts, left = left, s.counts
		s.held, s.out = s.out, s.held
	}
	s.asked = s.asked && bytes > s.limit/2
	s.mu.Unlock()

	// Lock for each key anew, so that hits are recorded while a million keys are
	// merged.
	for key, n := range left {
		s.add(key, n)
	}
}

// add adds n hits of a key of the batch to the Store.
func (s *Store) add(key string, n *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out -= Cost(key)
	if held := s.counts[key]; held != nil {
		*held += *n
		return
	}
	s.held += Cost(key)
	s.counts[key] = n
}
