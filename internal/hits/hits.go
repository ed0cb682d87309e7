// Package hits counts: it holds each key's hits between two flushes. It is the
// second step of a hit, and its mutex is the only lock on the way.
package hits

import (
	"slices"
	"strings"
	"sync"
)

// Counts maps each key to its number of hits, at least 1. The number is behind
// a pointer because an assignment through a map also replaces the map's key:
// the key of the last request would keep that request's memory alive.
//
// A Counts is not safe for concurrent use. It has one owner at a time, the
// Store or whoever took it.
type Counts map[string]*int64

// Count is what one key had when a batch was listed: Hits is at least 1.
type Count struct {
	Key  string
	Hits int64
}

// List returns the counts in the order of their keys' bytes, in which they are
// logged and sent. The original has them in the order of their first hit, but
// integer-like keys first, as JavaScript's objects do. The list is the caller's;
// it spares whoever goes through a million counts the look-ups in the map, which
// take longer than what is done with them.
func (c Counts) List() []Count {
	list := make([]Count, 0, len(c))
	for key, n := range c {
		list = append(list, Count{key, *n})
	}
	slices.SortFunc(list, func(a, b Count) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// Hits returns the sum of all the counts.
func (c Counts) Hits() int64 {
	var sum int64
	for _, n := range c {
		sum += *n
	}
	return sum
}

// Store is the original's store. All its methods may be called by many
// goroutines at once, but one batch is out at a time: after a Take, Merge comes
// before the next Take. At any moment a count is in exactly one place: in the
// Store, or in the batch that was taken.
//
// The original's store is a JavaScript object, in which the key __proto__ is
// never counted and constructor begins with source code; here they are keys as
// any other. The original's grows for as long as anybody invents keys.
type Store struct {
	limit int64         // in bytes
	full  chan struct{} // asks for a flush

	mu      sync.Mutex
	counts  Counts
	held    int64  // the cost of counts, in bytes
	batch   Counts // what is out; only its keys are read here
	out     int64  // the cost of batch
	pending int64  // hits that are held or out
	taken   int64  // of these, hits that are out
	asked   bool   // a flush was asked for, and has not made room yet
	refused int64  // hits since the last Refused
}

// keyCost is what a key costs beside its own length, in bytes: its share of the
// map, the counter, and what allocations are rounded up by.
const keyCost = 128

func cost(key string) int64 { return int64(len(key)) + keyCost }

// NewStore returns an empty Store that takes new keys up to limit bytes, and as
// many again while a batch is out. A quarter of limit beyond that is left for
// the keys of the batch, so that they go on counting.
func NewStore(limit int64) *Store {
	return &Store{limit: limit, full: make(chan struct{}, 1), counts: make(Counts)}
}

// Record adds a hit to key (the original's record). It keeps no reference to
// key: a new key is stored as a copy, a known one costs no allocation. Where
// there is no room for a new key, the hit is refused, and Full asks for a flush.
func (s *Store) Record(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[key]
	if n == nil {
		limit := s.limit
		if s.batch[key] != nil {
			limit += limit / 4
		}
		if held := s.held + cost(key); held > limit || held+s.out > limit+s.limit {
			s.refuse()
			return
		}
		s.held += cost(key)
		n = new(int64)
		s.counts[strings.Clone(key)] = n
	}
	*n++
	s.pending++
}

// refuse asks for a flush, but not again before one has made room: it would be
// asked for at each hit while the application is down.
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

// Full returns the channel that receives a value when there is no more room.
func (s *Store) Full() <-chan struct{} { return s.full }

// Refused returns how many hits were refused since it was last called.
func (s *Store) Refused() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused := s.refused
	s.refused = 0
	return refused
}

// Pending returns how many hits are held or out.
func (s *Store) Pending() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

// Take empties the Store and hands what it held to the caller, who owns it
// until it is merged, and only reads it until then (the original's reset). It
// takes constant time, so that no hit waits for a flush.
func (s *Store) Take() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch = s.counts
	s.counts = make(Counts)
	s.out, s.held = s.held, 0
	s.taken = s.pending
	return s.batch
}

// Merge ends what Take began: it adds what is left of the batch back to the
// Store, which owns it from then on (the original's merge). It drops nothing,
// whether there is room or not.
func (s *Store) Merge(left Counts) {
	var bytes int64
	for key := range left {
		bytes += cost(key)
	}
	hits := left.Hits()
	s.mu.Lock()
	s.pending -= s.taken - hits
	s.taken = 0
	s.batch, s.out = nil, bytes
	// What is left is mostly the larger: hits have only come in since.
	if len(s.counts) < len(left) {
		s.counts, left = left, s.counts
		s.held, s.out = s.out, s.held
	}
	s.asked = s.asked && bytes > s.limit/2
	s.mu.Unlock()

	// One lock for each key, so that hits go on while a million are merged.
	for key, n := range left {
		s.add(key, n)
	}
}

func (s *Store) add(key string, n *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out -= cost(key)
	if held := s.counts[key]; held != nil {
		*held += *n
		return
	}
	s.held += cost(key)
	s.counts[key] = n
}
