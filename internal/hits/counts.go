// Package hits counts the hits of each key, and hands them over in batches. It is the second step of a hit. The
// mutex of the Store is the only lock that the hits of different connections share.
package hits

import (
	"slices"
	"strings"

	"pixel-ping/internal/journal"
)

// Counts maps each key to its number of hits, at least 1. The number is behind a pointer so that Record need not
// assign to the map for a known key: the assignment would replace the key in the map by the key of the request, and
// keep the memory of the request alive.
type Counts map[string]*int64

// Count is a key and its number of hits, at least 1.
type Count = journal.Record

// List returns the counts sorted by the bytes of their keys, which is the order in which they are logged and sent.
// (The original's order is that of JavaScript objects: integer-like keys first, then the others by their first
// hit.)
func (c Counts) List() []Count {
	list := make([]Count, 0, len(c))
	for key, n := range c {
		list = append(list, Count{Key: key, Hits: *n})
	}
	slices.SortFunc(list, byKey)
	return list
}

func byKey(a, b Count) int { return strings.Compare(a.Key, b.Key) }

// Sum returns the number of hits in a list.
func Sum(list []Count) (n int64) {
	for _, count := range list {
		n += count.Hits
	}
	return n
}

// keyCost is the memory that a key takes beside its own bytes: its share of the map where that has just grown, the
// counter, and what allocations are rounded up by.
const keyCost = 128

// cost returns the memory that the keys of a list take, in bytes.
func cost(list ...Count) (bytes int64) {
	for _, count := range list {
		bytes += int64(len(count.Key)) + keyCost
	}
	return bytes
}
