// Package flush delivers the counts of the store to the application: at each
// interval, at a signal and at the stop. It is the third step of a hit.
package flush

import (
	"context"
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

// A Sender delivers a batch, or goes on with one that it has delivered in part. It
// returns nil if nothing is left of the batch, and else an error worded for the log.
// After an error, a batch that is in doubt has to be sent again as it is. An
// endpoint.Endpoint is a Sender.
type Sender interface {
	Send(ctx context.Context, b *endpoint.Batch) error
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
	About    string            // what lines about a setting begin with: the configuration's path, a colon and a space

	// Alive is called by Run, which calls it again within that time, unless the Endpoint
	// waits for an answer meanwhile. It may be nil.
	Alive func(within time.Duration)

	batch  *endpoint.Batch // the batch under way, which is in doubt between two flushes; nil if there is none
	counts hits.Counts     // what is left of it

	logged     *logwriter.Entry // the last block of lines that the log has accepted; nil before the first
	loggedKeys int              // how many keys the last lines had, and how many hits;
	loggedHits int64            // 0 if they were left out

	tally tally
}

// fullInterval is the least time between two flushes for want of room. Otherwise,
// clients who invent keys could cause one POST after the other.
const fullInterval = time.Second

// aliveInterval is the time between two calls of Alive while Run has nothing to do.
const aliveInterval = 10 * time.Second

// Run flushes at each interval, the first time one interval from now, and when
// forced receives a signal (the original's setInterval and its handler of
// SIGUSR2). It also flushes when the Store is full. However many of these come
// during a flush, one more flush follows it. When stopped is closed, Run flushes
// what is left and returns. When ctx ends, the delivery under way fails, and any
// later one fails at once.
//
// At its end, Run closes the Store, and returns what is lost. To learn whether the log
// has that, it waits until the log is written or the deadline of Stdout has passed.
func (f *Flusher) Run(ctx context.Context, stopped <-chan struct{}, forced <-chan os.Signal) Rest {
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	alive := time.NewTicker(aliveInterval)
	defer alive.Stop()
	if recovered, keys := f.Store.Waiting(); keys > 0 {
		fmt.Fprintf(f.Stderr, "pixel-ping: %s of %s recovered from the journal\n",
			logwriter.Plural(recovered, "hit"), logwriter.Plural(keys, "key"))
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

// Rest is what could not be delivered.
type Rest struct {
	Hits, Keys int64
	InDoubt    int64 // hits that the application may have saved
	Logged     bool  // the log has a line for each of the keys
	Kept       bool  // the journal has them
}

// String says in one line what could not be delivered.
func (r Rest) String() string {
	were, doubt, log := "were", "", "the log does not have them"
	if r.Hits == 1 {
		were = "was"
	}
	if r.InDoubt > 0 {
		doubt = fmt.Sprintf(" (%s may have been saved)", logwriter.Plural(r.InDoubt, "hit"))
	}
	if r.Kept {
		log = "the journal has them"
	} else if r.Logged {
		log = "the log has them"
	}
	return fmt.Sprintf("%s of %s %s not delivered%s; %s",
		logwriter.Plural(r.Hits, "hit"), logwriter.Plural(r.Keys, "key"), were, doubt, log)
}

// flushLast delivers what is held at a stop, closes the Store, and says what the
// journal keeps. It returns what is lost, which is nothing if nothing was promised:
// without an endpoint and without a journal. Unless the last lines of the log are just
// what is lost, it logs that once more.
func (f *Flusher) flushLast(ctx context.Context) Rest {
	f.flush(ctx, true)
	if f.logged != nil {
		f.logged.Taken() // waits
	}
	var doubt int64
	if f.batch != nil {
		doubt = sum(f.batch.Doubtful())
	}
	promised := f.Endpoint != nil || f.Store.Keeps()
	kept, lost := f.Store.Close()
	f.reportStore()
	if f.Endpoint != nil && len(kept) > 0 {
		rest := Rest{Hits: kept.Hits(), Keys: int64(len(kept)), InDoubt: doubt, Kept: true}
		fmt.Fprintf(f.Stderr, "pixel-ping: %s\n", rest)
		doubt = 0
	}
	if !promised || len(lost) == 0 {
		return Rest{}
	}
	rest := Rest{Hits: lost.Hits(), Keys: int64(len(lost)), InDoubt: doubt}
	if f.loggedKeys != len(lost) || f.loggedHits != rest.Hits {
		fmt.Fprintln(f.Stdout, "Not delivered:")
		f.logCounts(lost.List())
		if f.logged != nil {
			f.logged.Taken() // waits
		}
	}
	rest.Logged = f.loggedHits == rest.Hits && f.logged.Taken()
	return rest
}

// Unfinished says in one line what is lost if the process ends before Run does.
func (f *Flusher) Unfinished() string {
	hits := logwriter.Plural(f.Store.Pending(), "hit")
	if f.Store.Keeps() {
		return fmt.Sprintf("up to %s were not delivered; the journal has those that it had room for", hits)
	}
	return fmt.Sprintf("up to %s were not delivered, and there was no time to log them all", hits)
}

// Flush logs all counts and delivers them (the original's flush), even if there
// are none. A batch in doubt comes first; if the application accepts it, the counts
// since then follow, if there are any. Flush returns when the application has
// accepted the counts or the delivery has failed. The log may still be writing
// then: however slowly it is read, no POST waits for it.
func (f *Flusher) Flush(ctx context.Context) { f.flush(ctx, false) }

// flush is Flush. The last one makes no empty flush, which would tell the
// application that the daemon lives.
func (f *Flusher) flush(ctx context.Context, last bool) {
	if f.Endpoint == nil {
		f.logCounts(f.Store.List())
		f.Stdout.Wait(logDelay)
		f.reportStore()
		return
	}
	goOn := !last || f.Store.Pending() > 0
	if !goOn {
		f.reportStore()
		return
	}
	if f.batch != nil { // in doubt since the last flush
		goOn = ctx.Err() == nil && f.deliver(ctx, last) && f.Store.Pending() > 0
	}
	for goOn && f.batch == nil {
		again := f.take()
		goOn = f.deliver(ctx, last) && again && f.Store.Pending() > 0
	}
	f.tally.end(f.batch)
	f.reportStore()
}

// take takes a batch from the Store. It reports whether the batch is not all that the
// Store held, because an earlier process has sent it, or because the journal has no
// room for the sum of all.
func (f *Flusher) take() (again bool) {
	f.counts = f.Store.Take()
	list, sent := f.counts.List(), f.Store.Sent()
	if sent == nil {
		f.batch = endpoint.NewBatch(list, f.Store.Aside)
	} else {
		aside := make(map[string]bool)
		for _, r := range sent.Records {
			aside[r.Key] = r.Aside
		}
		f.batch = endpoint.NewBatch(list, aside)
		f.batch.First, f.batch.End = sent.Progress.First, sent.Progress.End
		f.batch.InDoubt = f.batch.First < f.batch.End
	}
	f.batch.ID, f.batch.Keeper, f.batch.Room = f.Store.ID(), f.Store, f.Store.Limit()/asideShare
	_, waiting := f.Store.Waiting()
	return sent != nil || waiting > 0
}

// reportStore says what the Store could not count or keep since the last flush.
func (f *Flusher) reportStore() {
	if err := f.Store.JournalError(); err != nil {
		fmt.Fprintf(f.Stderr, "pixel-ping: %v\n", err)
	}
	if n := f.Store.Refused(); n > 0 {
		of, were := "new keys", "were"
		if n == 1 {
			of, were = "a new key", "was"
		}
		fmt.Fprintf(f.Stderr, "pixel-ping: %s%s of %s %s not counted, as there was no room for more keys (maxmemory)\n",
			f.About, logwriter.Plural(n, "hit"), of, were)
	}
}

// asideShare is the part of the memory for keys that those may take which the
// application refuses one by one: clients who send such keys leave room for others.
const asideShare = 8

// deliver sends f.batch, and reports whether some of it was accepted. Unless the
// batch is in doubt then, deliver ends what Take began: each count is accepted and
// forgotten, or merged back, or, with Discard, dropped.
func (f *Flusher) deliver(ctx context.Context, last bool) (accepted bool) {
	b := f.batch
	b.Last = last
	list := b.Left()
	f.logCounts(list)
	err := f.Endpoint.Send(ctx, b)
	f.Store.Aside = b.Aside
	left := b.Left()
	f.tally.note(err == nil && len(b.Dropped) == 0, sum(list)-sum(left)-sum(b.Dropped))
	if accepted = len(left) < len(f.counts); accepted {
		some := make(hits.Counts, len(left))
		for _, count := range left {
			some[count.Key] = f.counts[count.Key]
		}
		f.counts = some
	}
	switch {
	case err != nil && f.Discard:
		f.Store.Merge(nil)
		f.batch, f.counts = nil, nil
	case b.InDoubt:
		f.Store.Keep(f.counts)
	default:
		f.Store.Merge(f.counts)
		f.batch, f.counts = nil, nil
	}
	f.report(b, err)
	return accepted
}

// report says how the delivery of b has ended: with err, or well.
func (f *Flusher) report(b *endpoint.Batch, err error) {
	f.Stdout.Wait(logDelay)
	if err != nil {
		// The error may quote the other end: a name in its certificate, say.
		fmt.Fprintf(f.Stderr, "--- %s\n", escape(err.Error()))
	} else {
		fmt.Fprintln(f.Stdout, "--- flushed ---")
	}
	if endpoint.Forbidden(err) {
		fmt.Fprintf(f.Stderr, "pixel-ping: %s%s\n", f.About, forbiddenText)
	}
	if to := endpoint.RedirectsTo(err); to != "" {
		fmt.Fprintf(f.Stderr, "pixel-ping: %s"+redirectText+"\n", f.About, escape(to))
	}
	if b.Doubled {
		fmt.Fprint(f.Stderr, doubledText)
		b.Doubled = false
	}
	if len(b.Dropped) > 0 {
		fmt.Fprintln(f.Stdout, "Dropped:")
		f.logCounts(b.Dropped)
		fmt.Fprintf(f.Stderr, "pixel-ping: %s of %s dropped: the application refuses each key alone as too large\n",
			logwriter.Plural(sum(b.Dropped), "hit"), logwriter.Plural(len(b.Dropped), "key"))
		b.Dropped = nil
	}
}

// sum returns the number of hits in a list.
func sum(list []hits.Count) (n int64) {
	for _, count := range list {
		n += count.Hits
	}
	return n
}

// logDelay is how long a flush waits at its end for its lines to be written, so that
// an error on stderr follows them, as in the original, and so that the log is not
// busy at a next flush that comes at once. It is short, as that flush waits, too.
const logDelay = 200 * time.Millisecond

const (
	forbiddenText = "the application refuses the request itself: \"secret\", or the user and " +
		"password in \"endpoint\", may differ from the application's"
	redirectText = "the application redirects to %s, which is not followed; \"endpoint\" may have to be that"
	doubledText  = "pixel-ping: some hits may be counted twice: the application may have saved them before it " +
		"cut the connection, and they are sent again in other parts\n"
)

// logCounts has the log write a line for each key (the original's log), so that
// there is a record of the hits whatever becomes of them. It leaves the lines out
// if the log is still busy with those of an earlier flush.
func (f *Flusher) logCounts(counts []hits.Count) {
	f.loggedKeys, f.loggedHits = 0, 0
	if block := f.Stdout.Block(len(counts), countLines(counts).Append); block != nil {
		f.logged, f.loggedKeys, f.loggedHits = block, len(counts), sum(counts)
	} else if len(counts) > 0 {
		fmt.Fprintf(f.Stdout, "pixel-ping: %s left out of the log here, which is still busy with an earlier flush\n",
			logwriter.Plural(len(counts), "line"))
	}
}

// countLines are the lines of the log for some counts.
type countLines []hits.Count

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
