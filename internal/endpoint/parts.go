package endpoint

import (
	"context"
	"errors"
	"time"
)

const (
	// maxTries is how often in a row a part in doubt is cut, or refused as too
	// large, before it is sent in smaller parts. The application may have saved it
	// each time, so that this may count it twice. A small body fits into the
	// system's buffers even if nobody reads it; so a cut says little of whether it
	// was read, and five in a row say more.
	maxTries = 5

	// limitLife is how long the size that the application accepts is remembered, as
	// applications change.
	limitLife = time.Hour

	// maxRetries is how many keys that were set aside are tried again in a flush,
	// and maxRefused how many keys may be refused alone, though larger bodies are
	// accepted, before a flush ends: they bound the POSTs of a flush.
	maxRetries, maxRefused = 8, 8
)

// Send delivers b, or goes on where an earlier Send has ended. It returns nil if
// nothing is left of b, and else an error worded as the original's log has it (in
// its flush). When ctx ends, Send returns at once. One goroutine at a time may
// call it.
//
// After an error, b.InDoubt is whether the application may have saved the part
// under way. If so, b must be sent again, with nothing newer before it, until the
// application accepts it: a later refusal does not tell whether the application
// has saved the part before. If not, the counts that are left may go into another
// batch.
//
// A batch that is too large for the application, as one is after a long outage, is
// sent in parts. (The original sends the same batch again, and it only grows.) The
// parts begin with the smallest keys. So if the first key is refused even alone,
// size is not the reason, and Send fails. If a later key is refused alone, all
// smaller ones were accepted, and it and the larger ones are set aside. Later
// flushes try some of the keys that were set aside again, after all others.
func (e *Endpoint) Send(ctx context.Context, b *Batch) error {
	err := e.send(ctx, b)
	if err == nil && len(b.Aside) > 0 && !b.Last && !b.single {
		e.retried = b.retryAside(e.retried)
		err = e.send(ctx, b)
	}
	if err == nil && len(b.Aside) > 0 {
		err = errAside
	}
	return err
}

var errAside = errors.New("keys are left that were refused alone before, and are set aside")

// send delivers b but for the keys that are set aside.
func (e *Endpoint) send(ctx context.Context, b *Batch) error {
	if len(b.List) == len(b.Aside) {
		b.First = len(b.List)
		if b.Last {
			return nil
		}
		return e.post(ctx, e.timeout, "", nil) // It says that the daemon lives.
	}
	s := &search{e: e, b: b, limit: e.limit, learned: e.learned}
	if time.Since(e.learned) > limitLife {
		e.limit = 0
	}
	for {
		if !b.InDoubt {
			b.End = e.endOfPart(b)
		}
		part := b.part()
		b.keepProgress()
		if len(part) == 0 {
			return s.refused
		}
		err := e.post(ctx, e.timeout, b.partID(), part)
		switch {
		case err == nil:
			if b.End < len(b.List) || b.First > 0 {
				b.accepted = max(b.accepted, e.sizeOf(b))
			}
			b.First, b.InDoubt, b.cuts, b.refused = b.End, false, 0, 0
		case !s.tooLarge(err):
			return err
		case len(part) > 1:
			s.halve()
		default:
			if !s.refuseKey(err) {
				return err
			}
		}
	}
}

// A search is what one send has learned about the parts that the application accepts.
type search struct {
	e *Endpoint
	b *Batch

	// The limit of e when the search began: it is restored if nothing is learned.
	limit   int64
	learned time.Time

	// A part that was in doubt is sent in smaller parts: it began and ended here.
	ofDoubt    bool
	first, end int

	refused error // of the first key that was refused alone
	others  int   // how many keys were refused alone, though larger bodies are accepted

	// The part that was halved first since a key was refused alone: where it ended, and
	// the limit before that.
	halvedEnd int
	before    int64
}

// tooLarge reports whether to send the part in smaller parts after err. If not, it sets
// b.InDoubt.
func (s *search) tooLarge(err error) bool {
	b, failed := s.b, err.(*failure)
	switch {
	case b.InDoubt:
		// Whatever follows, the part stays in doubt, unless all tries are used up.
		b.countTries(failed.outcome)
		if b.cuts < maxTries && b.refused < maxTries {
			return false
		}
		s.ofDoubt, s.first, s.end = true, b.First, b.End
		b.InDoubt, b.Doubled, b.cuts, b.refused = false, true, 0, 0
		return true
	case failed.outcome == 413:
		return true
	case failed.outcome == cut && (!failed.written || s.ofDoubt || b.single):
		// Some servers cut the connection in place of answering with 413. If the whole
		// part was written, that is the reason only where it was found out before.
		b.Doubled = b.Doubled || failed.written
		return true
	case s.ofDoubt && b.accepted == 0:
		// The search has not come to its end: the part is in doubt as it was before.
		b.First, b.End, b.InDoubt = s.first, s.end, true
		return false
	}
	b.InDoubt = failed.written && failed.inDoubt()
	b.countTries(failed.outcome)
	return false
}

// halve makes the limit half of the part that was refused.
func (s *search) halve() {
	if s.b.First >= s.halvedEnd {
		s.halvedEnd, s.before = s.b.End, s.e.limit
	}
	s.e.limit, s.e.learned = s.e.sizeOf(s.b)/2, time.Now()
}

// refuseKey sets the key aside that was refused alone with err. If its size is the
// reason, it sets the larger keys aside as well. It reports whether to go on.
func (s *search) refuseKey(err error) bool {
	if s.refused == nil {
		s.refused = err
	}
	switch e, b := s.e, s.b; {
	case b.single:
		// The key stays set aside, and the next one is tried.
		b.setAside(b.End)
	case b.accepted == 0:
		// Not even the smallest key is accepted: nothing is learned of the limit.
		e.limit, e.learned = s.limit, s.learned
		return false
	case e.sizeOf(b) > b.accepted:
		// The keys after it are as large or larger, and would be refused as well.
		b.setAside(len(b.List))
	default:
		// Larger bodies were accepted, so the reason is the key itself.
		b.setAside(b.End)
		e.limit, s.halvedEnd = s.before, 0
		s.others++
	}
	return s.others < maxRefused
}

// endOfPart returns where the part ends that begins with b.First: it has one key
// at least, and is no larger than the limit if it has more.
func (e *Endpoint) endOfPart(b *Batch) int {
	if b.First == 0 && !b.single && b.order == nil {
		// Most batches fit as a whole, and need not be sorted.
		b.End = len(b.List)
		if e.limit == 0 || e.bodySize(b.part()) <= e.limit {
			return b.End
		}
	}
	size, keys := e.bodySize(nil)-int64(commaSize), 0
	for position := b.First; position < len(b.List); position++ {
		i := b.index(position)
		if b.Aside[b.List[i].Key] {
			continue
		}
		size += int64(b.sizes[i])
		if keys > 0 && (b.single || e.limit > 0 && size > e.limit) {
			return position
		}
		keys++
	}
	return len(b.List)
}

// sizeOf returns the size of the body of the part under way.
func (e *Endpoint) sizeOf(b *Batch) int64 {
	size := e.bodySize(nil) - int64(commaSize)
	for position := b.First; position < b.End; position++ {
		if i := b.index(position); !b.Aside[b.List[i].Key] {
			size += int64(b.sizes[i])
		}
	}
	return size
}

// countTries counts how often in a row the part in doubt has failed in the same
// way.
func (b *Batch) countTries(how outcome) {
	cuts, refused := b.cuts+1, b.refused+1
	b.cuts, b.refused = 0, 0
	switch how {
	case cut:
		b.cuts = cuts
	case 413:
		b.refused = refused
	}
}

// inDoubt reports whether the application may have saved counts that were written whole.
func (f *failure) inDoubt() bool {
	switch f.outcome {
	case 502, 504, 520, 521, 522, 523, 524:
		return true
	}
	return f.outcome < 100
}

// Forbidden reports whether err, of Send, is an answer with 401 or 403: the application expects another secret.
func Forbidden(err error) bool {
	failed, ok := err.(*failure)
	return ok && (failed.outcome == 401 || failed.outcome == 403)
}
