// Package endpoint delivers a batch of hits to the publisher's application: in one POST, of the same bytes as the
// original's, or in several if the application refuses some of it. It is the last step of a hit.
package endpoint

import (
	"context"
	"net/url"
	"time"

	"pixel-ping/internal/post"
)

const (
	// minTimeout is the least time for an exchange: what proxies such as nginx wait for an answer.
	minTimeout = time.Minute
	// maxTimeout is the most time for an exchange. No flush can be made during one, and an interval may be a day.
	maxTimeout = 10 * time.Minute
)

// Endpoint is the application that hits are delivered to. One goroutine at a time may use it.
type Endpoint struct {
	*post.Client
	timeout time.Duration

	accepted int64 // how many parts the application has accepted

	limit   int64                      // parts of several keys are no larger, since larger ones were answered with 413; 0 if unknown
	limited time.Time                  // when the limit was last found to be so low
	found   map[post.Outcome]time.Time // when the content was last found to be the reason of an outcome
}

// New returns the Endpoint of u, target and secret: see post.New. An exchange may take a minute, or interval (the time
// between two flushes) if that is longer, but at most ten minutes. The original waits for ever.
func New(u *url.URL, target, secret string, interval time.Duration) *Endpoint {
	return &Endpoint{
		Client:  post.New(u, target, secret),
		timeout: min(max(interval, minTimeout), maxTimeout),
		found:   make(map[post.Outcome]time.Time),
	}
}

// A Report is how Send has ended.
type Report struct {
	Err       error // worded as the original's log has it; nil if nothing is left of the batch
	Answered  bool  // this batch alone is not accepted, as far as is known: others need not wait
	Vain      bool  // this batch may wait for long: a search found nothing, its id is locked, or its place can not be stored
	Forbidden bool  // the application refuses even an empty object, with 401 or 403
	Doubled   bool  // counts that may have been saved are or will be sent again under other ids
}

// Ping makes an empty POST, which tells the application that the daemon lives.
func (e *Endpoint) Ping(ctx context.Context) Report {
	if err := e.Post(ctx, e.timeout, "", nil); err != nil {
		outcome := err.(*post.Failure).Outcome
		return Report{Err: err, Forbidden: outcome == 401 || outcome == 403}
	}
	return Report{}
}
