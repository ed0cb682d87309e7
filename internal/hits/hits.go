// Package hits counts: it holds each key's hits between two flushes. It is the
// second step of a hit, and its mutex is the only lock on the way.
package hits

import (
	"maps"
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

// Keys returns the keys in the order of their bytes, in which they are logged
// and sent. The original has them in the order of their first hit, but
// integer-like keys first, as JavaScript's objects do.
func (c Counts) Keys() []string {
	return slices.Sorted(maps.Keys(c))
}

// Hits returns the sum of all the counts.
func (c Counts) Hits() int64 {
	var sum int64
	for _, n := range c {
		sum += *n
	}
	return sum
}

// Store is the original's store. The zero Store is empty and ready to use; all
// its methods may be called by many goroutines at once. At any moment a count
// is in exactly one place: in the Store, or in one Counts that was taken.
//
// The original's store is a JavaScript object, in which the key __proto__ is
// never counted and constructor begins with source code; here they are keys as
// any other.
type Store struct {
	mu     sync.Mutex
	counts Counts
}

// Record adds a hit to key (the original's record). It keeps no reference to
// key: a new key is stored as a copy, a known one costs no allocation.
func (s *Store) Record(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.counts[key]
	if n == nil {
		if s.counts == nil {
			s.counts = make(Counts)
		}
		n = new(int64)
		s.counts[strings.Clone(key)] = n
	}
	*n++
}

// Take empties the Store and hands what it held to the caller, who owns it
// from then on (the original's reset). It takes constant time, so that no hit
// waits for a flush. It returns nil when there is nothing.
func (s *Store) Take() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.counts
	s.counts = nil
	return taken
}

// Merge adds counts that were taken back to the Store, which owns them from
// then on (the original's merge).
func (s *Store) Merge(taken Counts) {
	s.mu.Lock()
	// What was taken is mostly the larger: hits have only come in since.
	if len(s.counts) < len(taken) {
		s.counts, taken = taken, s.counts
	}
	s.mu.Unlock()

	// One lock for each key, so that hits go on while a million are merged.
	for key, n := range taken {
		s.add(key, n)
	}
}

func (s *Store) add(key string, n *int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.counts[key]; held != nil {
		*held += *n
		return
	}
	if s.counts == nil {
		s.counts = make(Counts)
	}
	s.counts[key] = n
}
