// Package flush delivers the counts of the store to the application: at each
// interval, at a signal and at the stop. It is the third step of a hit.
package flush

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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
	Endpoint Sender        // nil: the counts are logged, and stay in the Store
	Discard  bool          // drop counts that could not be delivered, rather than merge them back
	Interval time.Duration // from one flush to the next, above 0
	Stdout   io.Writer     // the log
	Stderr   io.Writer     // what went wrong
}

// Run flushes at each interval, the first time one interval from now, and when
// forced receives a signal (the original's setInterval and its handler of
// SIGUSR2). It also flushes when the Store is full. However many of these come
// during a flush, one more flush follows it. When stopped is closed, Run flushes
// what is left and returns. When ctx ends, the delivery under way fails, and any
// later one fails at once.
func (f *Flusher) Run(ctx context.Context, stopped <-chan struct{}, forced <-chan os.Signal) {
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-stopped:
			f.flushLast(ctx)
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

// flushLast delivers what is left at a stop. It makes no empty flush, which
// would tell the application that the daemon lives. If only a part was accepted,
// flushLast logs the rest again, so that the last block of the log is what was
// not delivered.
func (f *Flusher) flushLast(ctx context.Context) {
	if counts := f.Store.Take(); len(counts) > 0 {
		left := f.deliver(ctx, counts)
		if len(left) > 0 && len(left) < len(counts) && !f.Discard {
			fmt.Fprintln(f.Stdout, "Not delivered:")
			f.logCounts(left)
		}
	}
	f.reportRefused()
}

// Flush logs all counts and delivers them (the original's flush), even if there
// are none. It returns when the application has accepted the counts or the
// delivery has failed.
func (f *Flusher) Flush(ctx context.Context) {
	f.deliver(ctx, f.Store.Take())
	f.reportRefused()
}

// deliver ends what Take began: each of the counts is accepted and forgotten, or
// merged back, or, with Discard, dropped. deliver returns those that were not
// accepted.
func (f *Flusher) deliver(ctx context.Context, counts hits.Counts) (left []hits.Count) {
	list := counts.List()
	f.logCounts(list)
	if f.Endpoint == nil {
		f.Store.Merge(counts)
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
	if err != nil {
		// The error may quote the other end: a name in its certificate, say.
		fmt.Fprintf(f.Stderr, "--- %s\n", escape(err.Error()))
		if errors.Is(err, endpoint.ErrForbidden) {
			fmt.Fprint(f.Stderr, forbiddenText)
		}
		return left
	}
	fmt.Fprintln(f.Stdout, "--- flushed ---")
	return nil
}

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

// logCounts prints a line for each key (the original's log), so that there is a
// record of the hits whatever becomes of them. It ignores errors: that the log
// is lost is no reason to lose the hits.
func (f *Flusher) logCounts(counts []hits.Count) {
	w := bufio.NewWriterSize(f.Stdout, 8<<10)
	defer w.Flush()
	for _, count := range counts {
		line := strconv.AppendInt(w.AvailableBuffer(), count.Hits, 10)
		line = append(line, ":\t"...)
		line = append(line, escape(count.Key)...)
		w.Write(append(line, '\n'))
	}
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
