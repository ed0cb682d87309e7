package hits

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"pixel-ping/internal/journal"
	"pixel-ping/internal/node"
)

// Count is a key and its number of hits, at least 1.
type Count = journal.Record

func byKey(a, b Count) int { return strings.Compare(a.Key, b.Key) }

// Sum returns the number of hits in a list.
func Sum(list []Count) (n int64) {
	for _, count := range list {
		n += count.Hits
	}
	return n
}

// keyCost is what a key takes beside its own bytes: its share of a map that has just grown, its counter, and rounding.
const keyCost = 128

// cost returns the memory that the keys of a list take, in bytes.
func cost(list ...Count) (bytes int64) {
	for _, count := range list {
		bytes += int64(len(count.Key)) + keyCost
	}
	return bytes
}

// A Batch is counts on their way to the application, which do not change. It is sent as a whole, or in parts. A part is
// a run of keys in the order of their sizes in the body, smallest first; positions are positions in that order, of all
// keys. A part that may have been saved comes again as it is, under the same id. The goroutine that flushes owns a Batch.
type Batch struct {
	List []Count // in the order of the keys' bytes

	// Progress says which keys are done with (accepted, set aside or dropped), and which part is under way.
	journal.Progress

	Memo any // what the endpoint remembers of the counts; it goes with them if they are merged back

	id    string
	file  *journal.File // nil if the counts are in memory only
	store *Store

	order, sizes []int32 // of the keys as indexes of List, and their sizes; nil until they are needed
}

// newBatch returns a batch of list. file is the journal's file that has the counts, or nil.
func (s *Store) newBatch(list []Count, file *journal.File) *Batch {
	b := &Batch{List: list, file: file, store: s, id: rand.Text()}
	if file != nil {
		b.id = file.ID
	}
	return b
}

// CommaSize is the size of a comma in the body.
const CommaSize = len("%2C")

// index returns the index in List of the key at a position.
func (b *Batch) index(position int) int {
	if b.order == nil {
		b.order, b.sizes = make([]int32, len(b.List)), make([]int32, len(b.List))
		var buf []byte
		for i, count := range b.List {
			buf = strconv.AppendInt(node.AppendJSONForm(buf[:0], count.Key), count.Hits, 10)
			b.order[i], b.sizes[i] = int32(i), int32(len(buf)+len("%3A")+CommaSize)
		}
		slices.SortFunc(b.order, func(i, j int32) int {
			return cmp.Or(cmp.Compare(b.sizes[i], b.sizes[j]), cmp.Compare(i, j))
		})
	}
	return int(b.order[position])
}

// Size returns what the key at a position takes in the body, with its count and a comma.
func (b *Batch) Size(position int) int64 {
	i := b.index(position)
	return int64(b.sizes[i])
}

// Hits returns the hits of the key at a position.
func (b *Batch) Hits(position int) int64 { return b.List[b.index(position)].Hits }

// Between returns the counts from position first to before end that are not done with, sorted by the keys' bytes.
func (b *Batch) Between(first, end int) []Count {
	if first == 0 && end == len(b.List) && b.Skip == 0 {
		return b.List
	}
	indexes := make([]int, 0, end-first)
	for position := first; position < end; position++ {
		if position != b.Skip || position == 0 {
			indexes = append(indexes, b.index(position))
		}
	}
	slices.Sort(indexes)
	list := make([]Count, len(indexes))
	for i, index := range indexes {
		list[i] = b.List[index]
	}
	return list
}

// Left returns the counts that are not done with.
func (b *Batch) Left() []Count { return b.Between(b.First, len(b.List)) }

// Done reports whether nothing is left.
func (b *Batch) Done() bool { return b.First == len(b.List) }

// Kept reports whether the journal has the batch.
func (b *Batch) Kept() bool { return b.file != nil }

// Part returns the counts of the part under way.
func (b *Batch) Part() []Count { return b.Between(b.From, b.End) }

// PartID returns the id of the part under way. A part that is the whole batch has the id of the batch.
func (b *Batch) PartID() string {
	if b.From == 0 && b.End == len(b.List) {
		return b.id
	}
	return fmt.Sprintf("%s.%d-%d", b.id, b.From, b.End)
}

// Begin makes a run of keys the part under way.
func (b *Batch) Begin(from, end int) { b.From, b.End, b.Doubt = from, end, false }

// Sending says that the part under way is sent next. A journal stores that first, so that the part comes again as it is
// if the process is killed. After an error the part must not be sent: if the process were killed, another part could
// take its place. The whole batch always has the same id, and needs no progress.
func (b *Batch) Sending() error {
	b.Sent = true
	err := b.storeProgress(true)
	if err != nil && b.PartID() != b.id && (b.From != b.file.Progress.From || b.End != b.file.Progress.End) {
		return fmt.Errorf("%w; a part of a batch waits until its place can be stored", err)
	}
	b.store.fail(err, "a batch that is delivered may be sent again after a start")
	return nil
}

// Refused says that the part under way was not accepted, and that it is not in doubt. If it was written whole, it stays
// under way: an application may have saved a part in spite of its answer, and then knows the id.
func (b *Batch) Refused(written bool) {
	if !written && b.Sent {
		b.From, b.End = b.First, b.First
	}
	b.storeProgress(false) // If that fails, the part is in doubt after a start, which does no harm.
}

// storeProgress stores the progress in the journal's file, if there is one.
func (b *Batch) storeProgress(doubt bool) error {
	p := b.Progress
	p.Doubt = doubt
	return b.file.SetProgress(p)
}

// Accepted says that the application has accepted the part under way.
func (b *Batch) Accepted() {
	accepted := Sum(b.Part())
	b.store.mu.Lock()
	b.store.stats.DeliveredHits += accepted
	b.store.mu.Unlock()
	if b.From == b.First {
		b.Finish(b.End)
		return
	}
	b.store.gone(b.Part())
	b.Skip, b.From, b.End, b.Doubt = b.From, b.First, b.First, false
}

// Trim frees the memory of the keys that are done with. Lists that were returned before stay as they are.
func (b *Batch) Trim() {
	b.List = slices.Clone(b.List)
	for position := range b.First {
		b.List[b.index(position)].Key = ""
	}
}

// Finish says that the keys before a position are done with.
func (b *Batch) Finish(end int) {
	b.store.gone(b.Between(b.First, end))
	if b.Skip > 0 && b.Skip <= end {
		end, b.Skip = max(end, b.Skip+1), 0
	}
	b.First, b.From, b.End, b.Doubt = end, end, end, false
}
