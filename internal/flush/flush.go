// Package flush moves hits from the store to the endpoint: at each interval, at
// a signal and at the stop. It is the third step of a hit.
package flush

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
)

// A Sender delivers counts, in that order. It returns nil if they
// were accepted, and else an error that is worded for the log, which is
// endpoint.ErrTooLarge or endpoint.ErrCut if they may be accepted in parts.
type Sender interface {
	Send(ctx context.Context, counts []hits.Count) error
}

// Flusher takes counts from its Store while it runs, and nobody else does. Its
// fields are not changed after Run or Flush was called, and only one of them
// runs at a time, so there is one flush at a time.
type Flusher struct {
	Store    *hits.Store
	Endpoint Sender        // nil: the counts are logged, and stay in the Store
	Discard  bool          // counts that could not be delivered are dropped, not merged back
	Interval time.Duration // from one flush to the next, above 0
	Stdout   io.Writer     // the log
	Stderr   io.Writer     // what went wrong
}

// Run flushes at each interval, the first time one interval from now, when
// forced receives a signal (the original's setInterval and its handler of
// SIGUSR2), and when the Store is full. What comes during a flush asks for one
// more after it. Once stopped is closed, Run flushes what is left and returns.
// When ctx ends, the delivery under way fails and so does any after it.
func (f *Flusher) Run(ctx context.Context, stopped <-chan struct{}, forced <-chan os.Signal) {
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-stopped:
			f.last(ctx)
			return
		default:
		}
		select {
		case <-ticker.C:
			f.Flush(ctx)
		case <-forced:
			fmt.Fprintln(f.Stdout, "Got SIGUSR2. Forcing a flush:")
			f.Flush(ctx)
		case <-f.Store.Full():
			f.Flush(ctx)
		case <-stopped:
		}
	}
}

// last delivers what is left at a stop. An empty flush tells the application
// that the daemon lives, so there is none then. If a part was accepted, the log
// says once more what was not: its last block is what is lost.
func (f *Flusher) last(ctx context.Context) {
	if counts := f.Store.Take(); len(counts) > 0 {
		left := f.deliver(ctx, counts)
		if len(left) > 0 && len(left) < len(counts) && !f.Discard {
			fmt.Fprintln(f.Stdout, "Not delivered:")
			f.log(left)
		}
	}
	f.tellRefused()
}

// Flush logs all counts and delivers them (the original's flush), even if there
// are none. It returns when the endpoint has answered or failed to.
func (f *Flusher) Flush(ctx context.Context) {
	f.deliver(ctx, f.Store.Take())
	f.tellRefused()
}

// deliver is a transaction: counts that were taken are either accepted and
// forgotten, or merged back, or dropped with Discard. It returns those that were
// not accepted.
func (f *Flusher) deliver(ctx context.Context, counts hits.Counts) (left []hits.Count) {
	list := counts.List()
	f.log(list)
	if f.Endpoint == nil {
		f.Store.Merge(counts)
		return nil
	}
	left, err := f.send(ctx, list, new(int))
	switch {
	case f.Discard:
		f.Store.Merge(nil)
	case len(left) == len(list):
		f.Store.Merge(counts)
	default:
		some := make(hits.Counts, len(left))
		for _, count := range left {
			some[count.Key] = counts[count.Key]
		}
		f.Store.Merge(some)
	}
	if err != nil {
		// The reason may have the words of the other end, as of its certificate.
		fmt.Fprintf(f.Stderr, "--- %s\n", escape(err.Error()))
		return left
	}
	fmt.Fprintln(f.Stdout, "--- flushed ---")
	return nil
}

// maxCuts is how many single keys in a row may have the connection cut. It is
// not for their size, then: nobody serves behind what accepts the connections.
const maxCuts = 8

// send delivers counts, and returns those that were not accepted.
// What is too large for the application, as batches grow to be when it was down
// for long, is sent in halves, and these in halves, down to single keys: one
// that is refused alone does not keep back the others. (The original sends the
// same batch again, and it only grows.) Any other failure ends it, since the
// rest would fare no better; it is the error then, and else the first one is.
func (f *Flusher) send(ctx context.Context, counts []hits.Count, cuts *int) (left []hits.Count, err error) {
	err = f.Endpoint.Send(ctx, counts)
	switch {
	case err == nil:
		*cuts = 0
		return nil, nil
	case !inParts(err):
		return counts, err
	case len(counts) < 2:
		if *cuts++; errors.Is(err, endpoint.ErrCut) && *cuts >= maxCuts {
			err = errors.New(err.Error())
		}
		return counts, err
	}
	half := len(counts) / 2
	left, err = f.send(ctx, counts[:half], cuts)
	if err != nil && !inParts(err) {
		return slices.Concat(left, counts[half:]), err
	}
	rest, second := f.send(ctx, counts[half:], cuts)
	if err == nil || second != nil && !inParts(second) {
		err = second
	}
	return slices.Concat(left, rest), err
}

// inParts reports whether what has failed may be accepted in parts.
func inParts(err error) bool {
	return errors.Is(err, endpoint.ErrTooLarge) || errors.Is(err, endpoint.ErrCut)
}

// tellRefused says how many hits found no room since the last flush.
func (f *Flusher) tellRefused() {
	if n := f.Store.Refused(); n > 0 {
		fmt.Fprintf(f.Stderr, "pixel-ping: %d hits of new keys were not counted, as there was no room for more keys (maxmemory)\n", n)
	}
}

// log writes a line for each key to stdout, so that there is a record of the
// hits whatever becomes of them (the original's log). An error is passed over:
// a log that nobody reads is no reason to lose the hits.
func (f *Flusher) log(counts []hits.Count) {
	w := bufio.NewWriterSize(f.Stdout, 8<<10)
	defer w.Flush()
	for _, count := range counts {
		line := strconv.AppendInt(w.AvailableBuffer(), count.Hits, 10)
		line = append(line, ":\t"...)
		line = append(line, escape(count.Key)...)
		w.Write(append(line, '\n'))
	}
}

// escape makes one line of any key. The original prints keys as they are, so
// that a client can end the line with %0A and go on with one of its own, or
// send codes to the terminal.
func escape(key string) string {
	if !strings.ContainsFunc(key, breaksLine) {
		return key
	}
	var b strings.Builder
	for _, r := range key {
		if breaksLine(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// breaksLine reports whether r is a control character or one that some
// programs take for the end of a line.
func breaksLine(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
}
