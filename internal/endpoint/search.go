package endpoint

import (
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
// reason is the first key. If none is, the size is the reason, or the application accepts nothing at all.
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
	first    int64     // the size of the first key, once that is refused alone
	tries    int       // how many POSTs of a key alone were refused since a key was last set aside
	probe    int       // the position of the key that is tried out of turn; 0 for none
}

// begin begins a search after a failure.
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

// explains reports whether the content may be the reason of a failure, without a question. s is nil before a search.
func (e *Endpoint) explains(s *search, f *post.Failure, again bool) bool {
	return tooLarge(f, again) ||
		s != nil && (f.Outcome == s.began && f.Outcome != post.Unreachable || e.hasFound(f.Outcome))
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
		if s.probe > 0 {
			return s.probe, s.probe + 1
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
	*m = memo{search: s, before: e.accepted}
	if s == nil {
		b.Accepted()
		return
	}
	s.largest = max(s.largest, e.BodySize(b.Part()))
	b.Accepted()
	if s.tooLarge > 0 {
		e.limit, e.limited = s.tooLarge/2, time.Now()
	}
	e.found[s.began] = time.Now()
	switch {
	case s.probe > 0:
		e.setAside(s, b.First+1, setAside)
	case b.First >= s.halved:
		s.limit *= 2
	}
}

// narrow goes on after the part under way was refused. It reports whether the search can go on.
func (e *Endpoint) narrow(s *search, f *post.Failure, setAside func([]hits.Count)) bool {
	b := s.batch
	size := e.BodySize(b.Part())
	if b.End-b.From > 1 || b.From > b.First && s.first == 0 { // several, or one that an earlier search tried out of turn
		s.limit, s.halved = size/2, b.End
		if f.Outcome == 413 {
			s.tooLarge = size
		}
		return true
	}
	s.alone++
	s.tries++
	if b.From == b.First {
		s.first = size
	}
	switch {
	case f.Outcome >= 500 && s.alone >= maxBroken:
		return false
	case s.largest >= s.first && s.first > 0:
		e.setAside(s, b.First+1, setAside)
	case s.tries < maxAlone && s.tryAnother():
	case s.largest > 0 && b.Skip == 0: // All that is accepted is smaller.
		e.setAside(s, len(b.List), setAside)
	case s.credit > 0:
		s.credit--
		e.setAside(s, b.First+1, setAside)
	default:
		return false
	}
	return true
}

// tryAnother chooses a key to try out of turn. They are spread over the batch, since those that a client has made up
// may be in a row.
func (s *search) tryAnother() bool {
	b := s.batch
	others := len(b.List) - b.First - 1
	if s.tries > others || b.Skip > 0 {
		return false
	}
	s.probe = b.First + s.tries
	if others >= maxAlone {
		eighths := [maxAlone]int{0, 4, 2, 6, 1, 5, 3, 7}
		s.probe = b.First + 1 + others*eighths[s.tries]/maxAlone
	}
	return true
}

// setAside sets aside the keys from the first one to before the position end.
func (e *Endpoint) setAside(s *search, end int, setAside func([]hits.Count)) {
	list := s.batch.Between(s.batch.First, end)
	setAside(list)
	s.batch.Finish(end)
	s.halved, s.limit, s.first, s.tries, s.probe = 0, 2*e.BodySize(list[:1]), 0, 0, 0
	if len(list) == 1 { // The parts that were too large had this key.
		e.limit, e.limited, s.tooLarge = s.before, s.beforeAt, 0
	}
	e.found[s.began] = time.Now()
}
