package endpoint

import (
	"context"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/post"
)

const (
	// rowRefused is how many flushes in a row are refused with the same status before the content is taken for the
	// reason. For a part in doubt it is rowDoubt tries that fail in the same way: an application that looks at ids
	// would have answered the second.
	rowRefused, rowDoubt = 3, 5
	// maxPause is the most flushes for which an application is not asked again.
	maxPause = 60
	// memory is how long it is remembered what the application refuses, as applications change.
	memory = time.Hour
	// MaxRefused is how many POSTs of a flush may be refused: 100, less one for each of three more batches and an empty one.
	MaxRefused = 96
)

// A memo is what is remembered of the counts in a batch since a part of them was accepted.
type memo struct {
	outcome post.Outcome // of the last POST
	row     int          // how many POSTs in a row had this outcome
	late    int          // how many POSTs had no answer in time
	pause   int          // for how many flushes the application is not asked whether it is there
	askAt   int          // the row at which it may be asked again
	before  int64        // how many parts of all batches were accepted before, or before a search began

	search *search              // under way; nil if there is none
	vain   bool                 // the last one has found nothing that is accepted
	ends   map[post.Outcome]int // how many searches of counts that are merged back each status has ended
}

// Send delivers b, or goes on where an earlier Send has ended. After an error, what is left is to be sent again; if
// b.Doubt is set, as it is. When ctx ends, Send returns at once.
// If the application seems to refuse b for its content, Send searches for the keys that are the reason, and calls
// setAside with them before they count as done with. (The original sends the same counts again for ever.) Each POST
// that is refused takes one from budget, and a search ends at 0. Without setAside, Send does not search.
func (e *Endpoint) Send(ctx context.Context, b *hits.Batch, budget *int, setAside func([]hits.Count)) (r Report) {
	m, ok := b.Memo.(*memo)
	if !ok {
		m = &memo{ends: make(map[post.Outcome]int)}
		m.before, b.Memo = e.accepted-int64(min(b.First, 1)), m // An earlier process has sent what is before First.
	}
	e.Ready = b.Sending
	first, written, retried := b.First, false, false // of the part: it was written whole once; it was sent twice
	for searching := false; !b.Done() && (!searching || *budget > 0); {
		again := b.Sent && b.From < b.End
		if !b.Doubt {
			b.Begin(e.next(b, m.search))
		}
		err := e.Post(ctx, e.timeFor(m), b.PartID(), b.Part())
		if err == nil {
			e.accept(b, m, setAside)
			retried = false
			continue
		}
		f, resent := err.(*post.Failure), b.Doubt
		r.Err, r.Vain, r.Answered = f, f.Outcome == post.Unready || f.Outcome == 409, isRefusal(f.Outcome)
		b.Doubt, written = resent || f.Written && !isRefusal(f.Outcome), again || f.Written
		if ctx.Err() != nil || setAside == nil {
			break
		}
		e.note(m, f)
		*budget--
		r.Answered = r.Answered || m.vain
		known := (!resent || retried) && e.explains(m, f, again)
		if !known && !e.suspects(ctx, m, f, resent, &r) {
			if searching && !b.Kept() && isRefusal(f.Outcome) && mayBeContent(f.Outcome) {
				m.ends[f.Outcome]++
			}
			break
		} else if !known || m.search == nil {
			m.search = e.begin(b, m, f)
		}
		searching = true
		retried = !retried && f.Outcome != post.Late && (b.Doubt || b.Kept() && f.Written && f.Outcome >= 500)
		if retried {
			continue // If it is saved, an application that looks at ids accepts it now.
		}
		r.Doubled = r.Doubled || b.Doubt || again && !isRefusal(f.Outcome)
		b.Doubt, m.late = false, 0
		if tooLarge(f, again) {
			m.row = 1 // What follows is another part.
		}
		goesOn, vain := e.narrow(ctx, m.search, f, setAside)
		b.From, b.End = b.First, b.First
		if !goesOn {
			m.search, m.vain, r.Answered, r.Vain = nil, vain, vain, vain
			if b.First == first || f.Outcome >= 500 {
				m.wait()
			}
			break
		}
	}
	if b.Done() {
		r.Err = nil
	} else if !b.Doubt {
		b.Refused(written)
		if !b.Kept() {
			m.search = nil // What is left is merged with other counts.
		}
	}
	return r
}

// timeFor returns how long the next POST may take. It doubles with each time-out.
func (e *Endpoint) timeFor(m *memo) time.Duration {
	timeout := e.timeout
	if m.search != nil {
		timeout = minTimeout
	}
	return min(timeout<<min(m.late, 10), maxTimeout)
}

// note notes a failure.
func (e *Endpoint) note(m *memo, f *post.Failure) {
	if m.row == 0 || m.outcome != f.Outcome {
		*m = memo{outcome: f.Outcome, late: m.late, before: m.before, search: m.search, ends: m.ends}
	}
	m.row++
	if f.Outcome == post.Late {
		m.late++
	}
}

// suspects reports whether the application seems to refuse counts for their content: there were several failures in a
// row, and it accepts the empty object that suspects sends, so it is there and the secret is right.
func (e *Endpoint) suspects(ctx context.Context, m *memo, f *post.Failure, resent bool, r *Report) bool {
	row := rowRefused
	if resent || !isRefusal(f.Outcome) {
		row = rowDoubt
	} else if e.hasFound(f.Outcome) {
		row = 1
	}
	if !mayBeContent(f.Outcome) || m.row < max(row, m.askAt) {
		return false
	}
	if empty := e.Ping(ctx); empty.Err != nil {
		m.vain, r.Answered, r.Forbidden = false, false, empty.Forbidden
		m.wait()
		return false
	}
	return true
}

// wait puts off the next question to the application for 1, 2, 4 and up to 60 flushes.
func (m *memo) wait() {
	m.pause = min(max(1, 2*m.pause), maxPause)
	m.askAt = m.row + 1 + m.pause
}

// isRefusal reports whether an outcome is an answer of the application. The other statuses are what a proxy answers
// if the application has not answered (520 to 524 are a CDN's).
func isRefusal(o post.Outcome) bool {
	return o >= 100 && o != 502 && o != 503 && o != 504 && (o < 520 || o > 524)
}

// mayBeContent reports whether the content of a request may be the reason of its outcome.
func mayBeContent(o post.Outcome) bool {
	switch o {
	case post.Cut, post.Late, 503, 504:
		return true
	case 401, 407, 408, 409, 425, 429:
		return false
	}
	return isRefusal(o)
}

// tooLarge reports whether the request is too large. Some servers cut the connection in place of answering with
// 413, but not if they have read the same request before.
func tooLarge(f *post.Failure, again bool) bool {
	return f.Outcome == 413 || f.Outcome == post.Cut && !f.Written && !again
}
