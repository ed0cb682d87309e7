package endpoint

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/post"
)

const (
	// maxAlone is how many keys are tried alone for one that is refused.
	maxAlone = 8
	// maxBroken is how many POSTs of a key alone show, with a status of 500 or above, that the application is broken.
	maxBroken = 32
)

// A search finds the keys of a batch that the application refuses, and the largest part that it accepts. A part that is
// refused is halved. After one that is accepted, the next is twice as large, up to the size that was refused.
//
// The parts begin with the smallest keys. If a key is refused alone, and a larger body was accepted, the key itself is
// the reason. Otherwise some of the larger keys are tried out of turn, each alone. If one of them is accepted, the
// reason is the first key. If none is, the application accepts no large bodies, or nothing, or many keys are bad.
type search struct {
	batch *hits.Batch
	began post.Outcome // the outcome that the search is to explain

	limit    int64     // the size of the next part
	halved   int       // the end of the part that was halved last
	tooLarge int64     // the size of the part of several keys that was last answered with 413; 0 if there is none
	before   int64     // the limit of the endpoint before the search
	beforeAt time.Time // when that was found
	credit   int       // how many keys may be set aside for parts that were accepted before the search
	largest  int64     // the largest body that was accepted
	alone    int       // how many POSTs of a key alone were refused
	inARow   int       // how many of them since a part was accepted
	first    int64     // the size of the first key, once that is refused alone
	tried    []int     // the positions of the keys that were tried out of turn for it; the last one is tried now
	content  bool      // a key was set aside alone after another one was accepted: the size is not the reason
}

func (e *Endpoint) begin(b *hits.Batch, m *memo, f *post.Failure) *search {
	s := &search{batch: b, began: f.Outcome, before: e.limit, beforeAt: e.limited}
	s.credit, m.before = int(min(e.accepted-m.before, maxAlone)), e.accepted
	if b.Skip > 0 { // No key can be tried out of turn.
		s.credit = maxAlone
	}
	if f.Outcome == post.Cut && !f.Written {
		s.began = post.Unreachable // A cut that comes later leaves a part in doubt.
	}
	return s
}

// explains reports whether the content may be the reason of a failure, without a question. It may be if the status has ended
// several searches, too: content may be refused for two reasons.
func (e *Endpoint) explains(m *memo, f *post.Failure, again bool) bool {
	s, o := m.search, f.Outcome
	return tooLarge(f, again) ||
		s != nil && (o == s.began && o != post.Unreachable || e.hasFound(o) || m.ends[o] >= rowRefused)
}

// hasFound reports whether a status was caused by the content in the last hour.
func (e *Endpoint) hasFound(o post.Outcome) bool {
	return isRefusal(o) && time.Since(e.found[o]) < memory
}

// next returns the part to send next. It has one key at least.
func (e *Endpoint) next(b *hits.Batch, s *search) (from, end int) {
	if b.From < b.End { // This part was neither accepted nor refused for its content.
		return b.From, b.End
	}
	limit := e.limit
	if time.Since(e.limited) > memory {
		limit = 0
	}
	if s != nil {
		if last := len(s.tried) - 1; last >= 0 {
			return s.tried[last], s.tried[last] + 1
		}
		if s.limit > 0 && (limit == 0 || s.limit < limit) {
			limit = s.limit
		}
	}
	from, last := b.First, len(b.List)
	if b.Skip > 0 {
		last = b.Skip
	}
	// Most batches fit as a whole, and need not be sorted.
	if limit == 0 || from == 0 && last == len(b.List) && e.BodySize(b.List) <= limit {
		return from, last
	}
	size := e.BodySize(nil) - int64(hits.CommaSize)
	for end = from; end < last; end++ {
		if size += b.Size(end); size > limit && end > from {
			break
		}
	}
	return from, end
}

// accept notes that the part under way was accepted.
func (e *Endpoint) accept(b *hits.Batch, m *memo, setAside func([]hits.Count)) {
	e.accepted++
	s := m.search
	*m = memo{before: e.accepted, ends: m.ends}
	if s == nil || s.limit+s.first == 0 { // Nothing was divided: the second try was accepted, and the search ends.
		b.Accepted()
		return
	}
	m.search, s.largest, s.inARow = s, max(s.largest, e.BodySize(b.Part())), 0
	b.Accepted()
	if s.tooLarge > 0 {
		e.limit, e.limited = s.tooLarge/2, time.Now()
	}
	e.found[s.began] = time.Now()
	if len(s.tried) > 0 {
		e.setAside(s, b.First+1, setAside)
	} else if b.First >= s.halved {
		s.limit *= 2
	}
}

// narrow goes on after the part under way was refused. It reports whether the search goes on, and if not, whether it was in
// vain. When many keys in a row are refused, narrow sends an empty object: if that is refused, too, nothing is known.
func (e *Endpoint) narrow(ctx context.Context, s *search, f *post.Failure, setAside func([]hits.Count)) (goesOn, vain bool) {
	b, size := s.batch, e.BodySize(s.batch.Part())
	if b.End-b.From > 1 || b.From > b.First && s.first == 0 { // several, or one that an earlier search tried out of turn
		s.limit, s.halved = size/2, b.End
		if f.Outcome == 413 {
			s.tooLarge = size
		}
		return true, false
	}
	s.alone, s.inARow = s.alone+1, s.inARow+1
	if b.From == b.First {
		s.first = size
	}
	switch {
	case f.Outcome >= 500 && s.alone >= maxBroken:
		return false, true
	case s.inARow%(maxAlone+1) == 0 && e.Ping(ctx).Err != nil:
		return false, false
	case s.largest >= s.first && s.first > 0:
		e.setAside(s, b.First+1, setAside)
	case len(s.tried)+1 < maxAlone && s.tryAnother():
	case s.largest > 0 && b.Skip == 0 && (f.Outcome == 413 || !s.content): // All that is accepted is smaller.
		if f.Outcome != 413 && e.Ping(ctx).Err != nil {
			return false, false
		}
		e.setAside(s, len(b.List), setAside)
	case s.content || s.credit > 0:
		s.credit--
		e.setAside(s, b.First+1, setAside)
	default:
		return false, true
	}
	return true, false
}

// tryAnother chooses a key to try out of turn, if there is one. Every second choice is the key with the most hits, since a
// client who makes up many keys hits each of them seldom. The others are random, since most keys may be honest.
func (s *search) tryAnother() bool {
	b, others := s.batch, len(s.batch.List)-s.batch.First-1
	if len(s.tried) >= others || b.Skip > 0 {
		return false
	}
	best, mostHits := 0, len(s.tried)%2 == 0
	for i, start := 0, rand.IntN(others); i < others; i++ {
		position := b.First + 1 + (start+i)%others
		if !slices.Contains(s.tried, position) && (best == 0 || mostHits && b.Hits(position) > b.Hits(best)) {
			best = position
		}
	}
	s.tried = append(s.tried, best)
	return true
}

// setAside sets aside the keys from the first one to before the position end.
func (e *Endpoint) setAside(s *search, end int, setAside func([]hits.Count)) {
	list := s.batch.Between(s.batch.First, end)
	setAside(list)
	s.batch.Finish(end)
	s.halved, s.limit, s.first, s.tried = 0, 2*e.BodySize(list[:1]), 0, nil
	if len(list) == 1 { // The parts that were too large had this key.
		e.limit, e.limited, s.tooLarge, s.content = s.before, s.beforeAt, 0, s.largest > 0
	}
	e.found[s.began] = time.Now()
}
