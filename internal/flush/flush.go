// Package flush, the third step of a hit, delivers the counts at each interval, at a signal and at the stop.
package flush

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/post"
	"pixel-ping/internal/stats"
)

// A Sender delivers a batch, or goes on with one that it has delivered in part, as endpoint.Endpoint does.
type Sender interface {
	Send(ctx context.Context, b *hits.Batch, budget *int, setAside func([]hits.Count)) endpoint.Report
	Ping(ctx context.Context) endpoint.Report
}

// Flusher delivers the counts of its Store. Only one of Run and Flush may run at a time; while it does, nobody else may
// take counts from the Store, and the fields must not change.
type Flusher struct {
	Store    *hits.Store
	Endpoint Sender            // nil: the counts are logged, and stay in the Store
	Discard  bool              // drop counts that could not be delivered, rather than send them again
	Interval time.Duration     // from one flush to the next, above 0
	Stdout   *logwriter.Writer // the log
	Stderr   *logwriter.Writer // what went wrong
	About    string            // what lines about a setting begin with: the configuration's path, a colon and a space

	// Alive is called by Run, which calls it again within that time unless a delivery takes longer. It may be nil.
	Alive func(within time.Duration)

	logged *logwriter.Entry // the last block of counts that the log has accepted
	lines  []hits.Count     // what it lists; nil if lines were left out since

	refused int64     // hits that the Store had refused when stderr last said so
	vain    bool      // a batch may wait for long, see endpoint.Report.Vain, and none was delivered since
	sealed  time.Time // when a batch was sealed last, or vain became true

	// Of the flush under way:
	aside    int64         // hits that were set aside
	dropped  int64         // how many of these hits found no room
	patience time.Duration // how long it may still wait for their lines
	budget   int           // how many more POSTs may be refused

	mu    sync.Mutex
	stats stats.Flushes
}

const (
	// fullInterval is the least time between two flushes for want of room: invented keys cause no series of POSTs.
	fullInterval = time.Second
	// aliveInterval is the time between two calls of Alive while Run has nothing to do.
	aliveInterval = 10 * time.Second
)

// Run flushes at each interval, the first time one interval from now, and when forced receives a signal (the
// original's setInterval and its handler of SIGUSR2). It also flushes when the Store is full. However many of these
// come during a flush, one more flush follows it. When ctx ends, the delivery under way fails, and any later one too.
//
// When stopped is closed, Run flushes what is left, closes the Store, and returns what is lost. To learn whether the
// log has that, it waits until the log is written or the deadline of Stdout has passed.
func (f *Flusher) Run(ctx context.Context, stopped <-chan struct{}, forced <-chan os.Signal) (lost string) {
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	if recovered := f.Store.Recovered; len(recovered) > 0 {
		f.Store.Recovered = nil // It may be large.
		f.tell("%s recovered from the journal", amount(recovered))
		if f.Endpoint != nil {
			f.Flush(ctx)
		}
	}
	full, pause := f.Store.Full(), (<-chan time.Time)(nil)
	for {
		if f.Alive != nil {
			f.Alive(aliveInterval)
		}
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
		case <-alive.C:
		case <-stopped:
		}
	}
}

// undelivered says in one line that a list was not delivered, how much of it may have been saved, and who has it.
func undelivered(list []hits.Count, doubt int64, who string) string {
	were, maybe := "were", ""
	if hits.Sum(list) == 1 {
		were = "was"
	}
	if doubt > 0 {
		maybe = fmt.Sprintf(" (%s may have been saved)", logwriter.Plural(doubt, "hit"))
	}
	return fmt.Sprintf("%s %s not delivered%s; the %s them", amount(list), were, maybe, who)
}

// flushLast delivers what is held at a stop, closes the Store, and says what the journal keeps. It returns what is
// lost, which is nothing if nothing was promised: with Discard, or without an endpoint and without a journal. It logs
// what is lost, unless the last block of the log is that list.
func (f *Flusher) flushLast(ctx context.Context) (lost string) {
	f.flush(ctx, true)
	f.retryAside(ctx)
	keptDoubt, doubt := f.Store.Doubtful(true), f.Store.Doubtful(false)
	kept, left := f.Store.Close()
	f.reportStore()
	if f.Endpoint != nil && len(kept) > 0 {
		f.tell("%s", undelivered(kept, keptDoubt, "journal has"))
	}
	if len(left) == 0 || f.Discard || f.Endpoint == nil && !f.Store.Keeps() {
		if f.logged != nil {
			f.logged.Taken() // waits
		}
		return ""
	}
	return undelivered(left, doubt, f.logLost("Not delivered:", left))
}

// retryAside sends the keys that are set aside once more, at the stop. That the application refuses them is no failure.
func (f *Flusher) retryAside(ctx context.Context) {
	before := f.Store.Doubtful(false)
	b := f.Store.SealAside()
	if b == nil {
		return
	}
	f.logCounts(b.List)
	f.Endpoint.Send(ctx, b, nil, nil)
	if left := b.Left(); len(left) > 0 {
		doubt := f.Store.Doubtful(false) - before
		f.tell("refused by the application: %s", undelivered(left, doubt, f.logLost(asideText, left)))
	}
	f.Store.Forget(b)
}

// logLost logs a list, unless it is the log's last block. It waits for it, and returns "log has" or "log does not have".
func (f *Flusher) logLost(title string, list []hits.Count) (who string) {
	if f.logged == nil || !f.logged.Taken() || !slices.Equal(f.lines, list) {
		fmt.Fprintln(f.Stdout, title)
		f.logCounts(list)
	}
	if f.lines == nil || !f.logged.Taken() {
		return "log does not have"
	}
	return "log has"
}

// Unfinished says in one line what is lost if the process ends before Run does.
func (f *Flusher) Unfinished() string {
	hits := logwriter.Plural(f.Store.Stats().Pending, "hit")
	if f.Store.Keeps() {
		return fmt.Sprintf("up to %s were not delivered; the journal has those that it had room for", hits)
	}
	return fmt.Sprintf("up to %s were not delivered, and there was no time to log them all", hits)
}

// Flush logs the counts and delivers them (the original's flush), even if there are none. The batches of earlier
// flushes come first, as they were. What was counted since follows if the application has accepted them, or has
// answered that it does not accept them. However slowly the log is read, no POST waits for it.
func (f *Flusher) Flush(ctx context.Context) { f.flush(ctx, false) }

// flush is Flush. The last one makes no empty flush, which would tell the application that the daemon lives.
func (f *Flusher) flush(ctx context.Context, last bool) {
	defer f.reportStore()
	if f.Endpoint == nil {
		f.logCounts(f.Store.List())
		f.Stdout.Wait(logDelay)
		f.count(func(s *stats.Flushes) { s.LastFlush = time.Now() })
		return
	}
	f.Store.Retry()
	f.patience, f.budget = asidePatience, endpoint.MaxRefused
	delivered, sent, sealed := true, false, false
	for i := 0; ; {
		b := f.Store.Batch(i)
		if b == nil && !sealed {
			// A key is set aside only if another one is accepted, which may be in the next batch. So behind batches that
			// may wait for long, and at a stop, up to four are out, and one more for each hour of that, up to twelve.
			f.Store.Seal(f.setAside, last && !f.Store.Keeps() || (last || f.vain) && i < 4 ||
				f.vain && i < 12 && time.Since(f.sealed) >= time.Hour)
			if b, sealed = f.Store.Batch(i), true; b != nil {
				f.sealed = time.Now()
			}
		}
		if b == nil {
			break
		}
		report := f.deliver(ctx, b)
		sent = true
		if report.Err == nil {
			f.vain = false
			continue // with the next one, which is at this index now
		}
		if delivered = false; report.Vain && !f.vain {
			f.vain, f.sealed = true, time.Now()
		}
		if i++; i > 3 && f.budget <= 0 || !report.Answered && !report.Vain || f.Store.Batch(i-1) != b {
			break
		}
	}
	if !sent && !last {
		report := f.Endpoint.Ping(ctx)
		f.report(report)
		delivered = report.Err == nil
	}
	f.count(func(s *stats.Flushes) {
		s.LastFlush = time.Now()
		if delivered {
			s.Delivered, s.LastDelivery = s.Delivered+1, s.LastFlush
		} else {
			s.Failed++
		}
	})
}

// count changes what the Flusher counts.
func (f *Flusher) count(change func(s *stats.Flushes)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.stats)
}

// Stats returns what the Flusher counts. It may be called by many goroutines at once, and waits for no delivery.
func (f *Flusher) Stats() stats.Flushes {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// deliver sends b. What is left waits as it is, or is merged back (the original's merge), or is dropped (with Discard).
func (f *Flusher) deliver(ctx context.Context, b *hits.Batch) endpoint.Report {
	f.logCounts(b.Left())
	report := f.Endpoint.Send(ctx, b, &f.budget, f.setAside)
	switch {
	case report.Err == nil || f.Discard:
		f.Store.Forget(b)
	case !b.Doubt && !b.Kept():
		f.Store.Merge(b)
	case b.First > 0:
		b.Trim()
	}
	doubt := f.Store.Doubtful(true) + f.Store.Doubtful(false) // This may read the disk.
	f.count(func(s *stats.Flushes) { s.InDoubt = doubt })
	f.report(report)
	return report
}

// setAside logs keys that the application refuses, and has the Store hold them. It waits a moment for the log.
func (f *Flusher) setAside(list []hits.Count) {
	text := []byte(asideText + "\n")
	for _, count := range list {
		text = appendLine(text, count)
	}
	f.Stdout.Write(fmt.Appendf(text, "pixel-ping: %s set aside\n", amount(list)))
	began := time.Now()
	f.Stdout.Wait(min(logDelay, f.patience))
	f.patience -= time.Since(began)
	f.aside += hits.Sum(list)
	f.dropped += f.Store.SetAside(list)
}

// reportStore says what the Store could not count, keep or deliver since the last flush.
func (f *Flusher) reportStore() {
	for err := f.Store.JournalError(); err != nil; err = f.Store.JournalError() {
		f.tell("%v", err)
	}
	refused := f.Store.Stats().Refused
	if n := refused - f.refused; n > 0 {
		what := "hits of new keys were"
		if n == 1 {
			what = "hit of a new key was"
		}
		f.tell("%s%d %s not counted, as there was no room for more keys (maxmemory)", f.About, n, what)
	}
	if f.aside > 0 {
		f.tell("the application refuses %s for what the keys are; they are set aside", logwriter.Plural(f.aside, "hit"))
	}
	if f.dropped > 0 {
		f.tell("%s%s of them dropped, as there is no room for more keys that are set aside (maxmemory)",
			f.About, logwriter.Plural(f.dropped, "hit"))
	}
	f.refused, f.aside, f.dropped = refused, 0, 0
}

// report says how a delivery has ended: with an error, or well.
func (f *Flusher) report(r endpoint.Report) {
	f.Stdout.Wait(logDelay)
	if r.Err != nil {
		// The error may quote the other end: a name in its certificate, say.
		fmt.Fprintf(f.Stderr, "--- %s\n", appendEscaped(nil, r.Err.Error()))
	} else {
		fmt.Fprintln(f.Stdout, "--- flushed ---")
	}
	if r.Forbidden {
		f.tell(`%sthe application refuses the request itself: "secret", or the user and password in "endpoint", `+
			`may differ from the application's`, f.About)
	}
	if to := post.RedirectsTo(r.Err); to != "" {
		f.tell(`%sthe application redirects to %s, which is not followed; "endpoint" may have to be that`,
			f.About, appendEscaped(nil, to))
	}
	if r.Doubled {
		f.tell("some hits may be counted twice: the application may have saved them before its answer was lost, " +
			"and they are sent again in other parts")
	}
}

// tell writes a line to stderr.
func (f *Flusher) tell(format string, a ...any) {
	fmt.Fprintf(f.Stderr, "pixel-ping: "+format+"\n", a...)
}

const (
	// logDelay is how long a flush waits at its end for its lines to be written, so that an error on stderr follows
	// them, as in the original, and so that the log is not busy at a next flush that comes at once.
	logDelay = 200 * time.Millisecond
	// asidePatience is how long a flush waits in all for the lines of keys that are set aside, in up to 100 blocks.
	asidePatience = time.Second
	asideText     = "Refused by the application:"
)

// logCounts has the log write a line for each key (the original's log), so that there is a record of the hits
// whatever becomes of them. It leaves the lines out if the log is still busy with those of an earlier flush.
func (f *Flusher) logCounts(list []hits.Count) {
	f.lines = nil
	line := func(dst []byte, i int) []byte { return appendLine(dst, list[i]) }
	if block := f.Stdout.Block(len(list), line); block != nil {
		f.logged, f.lines = block, list
	} else if len(list) > 0 {
		fmt.Fprintf(f.Stdout, "pixel-ping: %s left out of the log here, which is still busy with an earlier flush\n",
			logwriter.Plural(len(list), "line"))
	}
}

// amount says how many hits of how many keys are in a list.
func amount(list []hits.Count) string {
	return fmt.Sprintf("%s of %s", logwriter.Plural(hits.Sum(list), "hit"), logwriter.Plural(len(list), "key"))
}

// appendLine appends the line of the log for a key.
func appendLine(dst []byte, count hits.Count) []byte {
	dst = strconv.AppendInt(dst, count.Hits, 10)
	dst = append(dst, ":\t"...)
	return append(appendEscaped(dst, count.Key), '\n')
}

// appendEscaped appends s without the characters that would break its line in the log: control characters, and those
// that some programs take for the end of a line. The original prints keys as they are: with %0A in a key, a client
// can forge a line, and with other control characters it can control the terminal.
func appendEscaped(dst []byte, s string) []byte {
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			dst = fmt.Appendf(dst, `\u%04x`, r)
		} else {
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}
