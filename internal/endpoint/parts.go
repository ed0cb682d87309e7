package endpoint

import (
	"context"
	"errors"
	"slices"

	"pixel-ping/internal/hits"
)

// Send posts counts and returns those that the application did not accept, and
// the error if there are any. The error is worded as the original's log has it
// (in its flush). Send only reads counts, and does not keep them. When ctx
// ends, Send returns at once.
//
// A batch that is too large for the application, as one is after a long outage,
// is sent in halves, and these in halves, down to single keys, so that a key
// that is refused alone does not keep back the others. (The original sends the
// same batch again, and it only grows.) Any other failure ends Send, since the
// rest would fail too; Send returns that error, or else the first one.
func (e *Endpoint) Send(ctx context.Context, counts []hits.Count) (left []hits.Count, err error) {
	p := parts{post: e.post}
	return p.send(ctx, counts)
}

// maxCuts is how many single keys in a row may have their connection cut before
// their size is no longer taken for the reason: then a proxy accepts
// connections, but no backend is behind it. 8 keys that are too large in a row
// are unlikely, and 8 connections cost little.
const maxCuts = 8

// parts is one Send.
type parts struct {
	post func(ctx context.Context, counts []hits.Count) error
	cuts int // single keys in a row whose connection was cut
}

func (p *parts) send(ctx context.Context, counts []hits.Count) (left []hits.Count, err error) {
	err = p.post(ctx, counts)
	switch {
	case err == nil:
		p.cuts = 0
		return nil, nil
	case !maybeTooLarge(err):
		return counts, err
	case len(counts) < 2:
		if p.cuts++; errors.Is(err, ErrCut) && p.cuts >= maxCuts {
			err = errors.New(err.Error())
		}
		return counts, err
	}
	half := len(counts) / 2
	left, err = p.send(ctx, counts[:half])
	if err != nil && !maybeTooLarge(err) {
		return slices.Concat(left, counts[half:]), err
	}
	rest, second := p.send(ctx, counts[half:])
	if err == nil || second != nil && !maybeTooLarge(second) {
		err = second
	}
	return slices.Concat(left, rest), err
}

// maybeTooLarge reports whether the counts of a POST that failed with err may be
// accepted in parts.
func maybeTooLarge(err error) bool {
	return errors.Is(err, ErrTooLarge) || errors.Is(err, ErrCut)
}
