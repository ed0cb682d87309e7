package endpoint

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/node"
)

// A Batch is counts on their way to the application. While Send runs, only Send may
// use it.
//
// A Batch is sent as a whole, or in parts. A part is a run of keys in the order of
// their sizes in the body, smallest first; First and End are positions in that order.
// ID, List, Aside, First and End determine the part under way: after a failure, the
// same bytes are sent again under the same id.
type Batch struct {
	ID      string          // letters, digits, '-' and '.'; never that of another batch
	List    []hits.Count    // in the order of the keys' bytes
	Aside   map[string]bool // keys that are not sent, since each was refused alone
	Dropped []hits.Count    // counts for which there was no room in Aside

	First   int  // how many keys are done with: accepted, set aside or dropped
	End     int  // the end of the part under way, which begins with First
	InDoubt bool // the application may have saved the part under way
	Doubled bool // counts that may have been saved are or will be sent again under other ids

	Room   int64  // bytes of memory that the keys in Aside may take
	Last   bool   // there is no later flush: do not try the keys in Aside again
	Keeper Keeper // may be nil

	asideSize int64 // bytes of memory that the keys in Aside take

	order  []int32 // the keys, smallest first, as indexes of List; nil until it is needed
	sizes  []int32 // of each key of List in the body, with its count and a comma
	single bool    // each part has one key, as these keys have been set aside before

	accepted int64 // the largest body that was accepted
	cuts     int   // how often in a row the part in doubt was cut
	refused  int   // how often in a row it was refused as too large
}

// A Keeper stores the progress of a Batch so that it outlives the process.
type Keeper interface {
	// SetProgress is called before each POST that carries counts, and when nothing
	// is left to send.
	SetProgress(first, end int)
	// SetAside is called before the progress moves past keys that were set aside.
	SetAside(aside func(key string) bool)
	// Replace is called when only keys are left that are set aside, before some of
	// them are tried again. They become a new batch, whose id Replace returns; those
	// in aside stay set aside.
	Replace(list []hits.Count, aside map[string]bool) (id string)
}

// NewBatch returns a batch of list, which must be in the order of the keys' bytes,
// with a new id. Keys of list that are in aside stay set aside.
func NewBatch(list []hits.Count, aside map[string]bool) *Batch {
	b := &Batch{ID: rand.Text(), List: list, Aside: make(map[string]bool)}
	if len(aside) > 0 {
		for _, count := range list {
			if aside[count.Key] {
				b.Aside[count.Key] = true
				b.asideSize += hits.Cost(count.Key)
			}
		}
	}
	return b
}

// Left returns the counts that were neither accepted nor dropped, in the order of
// the keys' bytes.
func (b *Batch) Left() []hits.Count {
	switch {
	case b.First == 0:
		return b.List
	case b.First == len(b.List) && len(b.Aside) == 0:
		return nil
	}
	left := make([]bool, len(b.List))
	for position := b.First; position < len(b.List); position++ {
		left[b.index(position)] = true
	}
	var list []hits.Count
	for i, count := range b.List {
		if left[i] || b.Aside[count.Key] {
			list = append(list, count)
		}
	}
	return list
}

// Doubtful returns the counts that the application may have saved.
func (b *Batch) Doubtful() []hits.Count {
	if !b.InDoubt {
		return nil
	}
	return b.part()
}

// commaSize is the size of a comma in the body.
const commaSize = len("%2C")

// index returns the index in List of the key at a position. Position 0 is that of the
// smallest key.
func (b *Batch) index(position int) int {
	if b.order == nil {
		b.order, b.sizes = make([]int32, len(b.List)), make([]int32, len(b.List))
		var buf []byte
		for i, count := range b.List {
			buf = strconv.AppendInt(node.AppendJSONForm(buf[:0], count.Key), count.Hits, 10)
			b.order[i], b.sizes[i] = int32(i), int32(len(buf)+len("%3A")+commaSize)
		}
		slices.SortFunc(b.order, func(i, j int32) int {
			return cmp.Or(cmp.Compare(b.sizes[i], b.sizes[j]), cmp.Compare(i, j))
		})
	}
	return int(b.order[position])
}

// part returns the counts of the part under way, in the order of the keys' bytes.
func (b *Batch) part() []hits.Count {
	if b.First == 0 && b.End == len(b.List) {
		if len(b.Aside) == 0 {
			return b.List
		}
		isAside := func(count hits.Count) bool { return b.Aside[count.Key] }
		return slices.DeleteFunc(slices.Clone(b.List), isAside)
	}
	var indexes []int
	for position := b.First; position < b.End; position++ {
		if i := b.index(position); !b.Aside[b.List[i].Key] {
			indexes = append(indexes, i)
		}
	}
	slices.Sort(indexes)
	part := make([]hits.Count, len(indexes))
	for i, index := range indexes {
		part[i] = b.List[index]
	}
	return part
}

// partID returns the id of the part under way: that of the batch if it is the
// whole.
func (b *Batch) partID() string {
	if b.First == 0 && b.End == len(b.List) {
		return b.ID
	}
	return fmt.Sprintf("%s.%d-%d", b.ID, b.First, b.End)
}

// setAside sets the keys from First to end aside, or drops those for which there is no
// room. Then it moves First to end.
func (b *Batch) setAside(end int) {
	for position := b.First; position < end; position++ {
		count := b.List[b.index(position)]
		switch cost := hits.Cost(count.Key); {
		case b.Aside[count.Key]:
		case b.asideSize+cost > b.Room:
			b.Dropped = append(b.Dropped, count)
		default:
			b.Aside[count.Key] = true
			b.asideSize += cost
		}
	}
	if b.Keeper != nil {
		b.Keeper.SetAside(func(key string) bool { return b.Aside[key] })
	}
	b.First = end
}

// retryAside turns b into a new batch of the keys that are set aside. The next few keys
// after the key last are sent, and the others stay set aside. retryAside returns the
// last key that is sent, where the next call goes on.
func (b *Batch) retryAside(last string) string {
	list := b.Left()
	start, found := slices.BinarySearchFunc(list, last, func(count hits.Count, key string) int {
		return strings.Compare(count.Key, key)
	})
	if found {
		start++
	}
	retry := NewBatch(list, b.Aside)
	retry.Room, retry.Keeper, retry.Dropped, retry.Doubled, retry.single = b.Room, b.Keeper, b.Dropped, b.Doubled, true
	for i := range min(maxRetries, len(list)) {
		last = list[(start+i)%len(list)].Key
		delete(retry.Aside, last)
		retry.asideSize -= hits.Cost(last)
	}
	if retry.Keeper != nil {
		retry.ID = retry.Keeper.Replace(list, retry.Aside)
	}
	*b = *retry
	return last
}

// keepProgress stores the progress before a POST, and at the end.
func (b *Batch) keepProgress() {
	if b.Keeper != nil {
		b.Keeper.SetProgress(b.First, b.End)
	}
}
