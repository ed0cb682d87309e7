// Package flush delivers the counts of the store to the application: at each
// interval, at a signal and at the stop. It is the third step of a hit.
package flush

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// A Sender delivers counts. It returns those that were not accepted, in their
// order, and an error worded for the log if there are any. It only reads counts,
// and does not keep them. An endpoint.Endpoint is one.
type Sender interface {
	Send(ctx context.Context, counts []hits.Count) (left []hits.Count, err error)
}

// Flusher delivers the counts of its Store. While Run or Flush runs, nobody else
// may take counts from the Store. There is one flush at a time: only one of the
// two methods may run, and the fields must not change while it does.
type Flusher struct {
	Store    *hits.Store
	Endpoint Sender            // nil: the counts are logged, and stay in the Store
	Discard  bool              // drop counts that could not be delivered, rather than merge them back
	Interval time.Duration     // from one flush to the next, above 0
	Stdout   *logwriter.Writer // the log
	Stderr   *logwriter.Writer // what went wrong

	logged *logwriter.Batch // the last batch that the log has accepted; nil before the first
	tally  tally
}

// fullInterval is the least time between two flushes for want of room. Otherwise,
// clients who invent keys could cause one POST after the other.
const fullInterval = time.Second

// Run flushes at each interval, the first time one interval from now, and when
// forced receives a signal (the original's setInterval and its handler of
// SIGUSR2). It also flushes when the Store is full. However many of these come
// during a flush, one more flush follows it. When stopped is closed, Run flushes
// what is left and returns. When ctx ends, the delivery under way fails, and any
// later one fails at once.
//
// Run reports whether the log has a line for each key that it leaves in the Store.
// To learn this, it waits until the log is written or the deadline of Stdout has
// passed.
func (f *Flusher) Run(ctx context.Context, stopped <-chan struct{}, forced <-chan os.Signal) (logged bool) {
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	full, pause := f.Store.Full(), (<-chan time.Time)(nil)
	for {
		select {
		case <-stopped:
			return f.flushLast(ctx)
		default:
		}
		select {
		case <-ticker.C:
			f.Flush(ctx)
		case <-forced:
			fmt.Fprintln(f.Stdout, "Got SIGUSR2. Forcing a flush:")
			f.Flush(ctx)
		case <-full:
			full, pause = nil, time.After(fullInterval)
			f.Flush(ctx)
		case <-pause:
			full = f.Store.Full()
		case <-stopped:
		}
	}
}

// flushLast delivers what is left at a stop. It makes no empty flush, which
// would tell the application that the daemon lives. If only a part was accepted,
// or the log was busy, flushLast logs what was not accepted once more: the last
// block of the log is what was not delivered. It reports whether the log has all
// of that.
func (f *Flusher) flushLast(ctx context.Context) (logged bool) {
	counts := f.Store.Take()
	if len(counts) == 0 {
		f.Store.Merge(nil)
		f.reportRefused()
		return true
	}
	list := counts.List()
	batch := f.logCounts(list)
	left := f.deliver(ctx, counts, list)
	if f.logged != nil {
		<-f.logged.Done()
	}
	if len(left) > 0 && !f.Discard && (batch == nil || len(left) < len(list)) {
		fmt.Fprintln(f.Stdout, "Not delivered:")
		if batch = f.logCounts(left); batch != nil {
			<-batch.Done()
		}
	}
	f.reportRefused()
	return len(left) == 0 || batch != nil && batch.Taken()
}

// Flush logs all counts and delivers them (the original's flush), even if there
// are none. It returns when the application has accepted the counts or the
// delivery has failed. The log may still be writing then: however slowly it is
// read, no POST waits for it.
func (f *Flusher) Flush(ctx context.Context) {
	counts := f.Store.Take()
	list := counts.List()
	f.logCounts(list)
	f.deliver(ctx, counts, list)
	f.reportRefused()
}

// deliver ends what Take began: each of the counts is accepted and forgotten, or
// merged back, or, with Discard, dropped. list has the same counts. deliver returns
// those that were not accepted.
func (f *Flusher) deliver(ctx context.Context, counts hits.Counts, list []hits.Count) (left []hits.Count) {
	if f.Endpoint == nil {
		f.Store.Merge(counts)
		f.Stdout.Wait(logDelay)
		return nil
	}
	left, err := f.Endpoint.Send(ctx, list)
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
	f.tally.note(err == nil, sum(list)-sum(left))
	f.Stdout.Wait(logDelay)
	if err == nil {
		fmt.Fprintln(f.Stdout, "--- flushed ---")
		return nil
	}
	// The error may quote the other end: a name in its certificate, say.
	fmt.Fprintf(f.Stderr, "--- %s\n", escape(err.Error()))
	if errors.Is(err, endpoint.ErrForbidden) {
		fmt.Fprint(f.Stderr, forbiddenText)
	}
	return left
}

// logDelay is how long a flush waits at its end for its lines to be written, so that
// an error on stderr follows them, as in the original, and so that the log is not
// busy at a next flush that comes at once. It is short, as that flush waits, too.
const logDelay = 200 * time.Millisecond

const forbiddenText = "pixel-ping: the application refuses the request itself: \"secret\", or the user and " +
	"password in \"endpoint\", may differ from the application's\n"

// reportRefused prints how many hits the Store has refused since the last flush.
func (f *Flusher) reportRefused() {
	if n := f.Store.Refused(); n > 0 {
		of, were := "new keys", "were"
		if n == 1 {
			of, were = "a new key", "was"
		}
		fmt.Fprintf(f.Stderr, "pixel-ping: %s of %s %s not counted, as there was no room for more keys (maxmemory)\n",
			logwriter.Plural(n, "hit"), of, were)
	}
}

// logCounts has the log write a line for each key (the original's log), so that
// there is a record of the hits whatever becomes of them. It returns nil if the
// lines are left out, since the log is still busy with those of an earlier flush.
func (f *Flusher) logCounts(counts []hits.Count) *logwriter.Batch {
	batch := f.Stdout.Batch(countLines(counts))
	if batch != nil {
		f.logged = batch
	} else if len(counts) > 0 {
		fmt.Fprintf(f.Stdout, "pixel-ping: %s left out of the log here, which is still busy with an earlier flush\n",
			logwriter.Plural(len(counts), "line"))
	}
	return batch
}

// countLines are the lines of the log for some counts.
type countLines []hits.Count

func (c countLines) Len() int { return len(c) }

func (c countLines) Append(dst []byte, i int) []byte {
	dst = strconv.AppendInt(dst, c[i].Hits, 10)
	dst = append(dst, ":\t"...)
	dst = append(dst, escape(c[i].Key)...)
	return append(dst, '\n')
}

// escape returns key without the characters that would break its line in the
// log. The original prints keys as they are: with %0A in a key, a client can
// forge a line, and with other control characters it can control the terminal.
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
