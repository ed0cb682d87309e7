// Package logwriter writes the log of a daemon that must not depend on who reads
// it: however slowly stdout or stderr is read, or not at all, the daemon goes on.
package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// chunkSize is how many bytes of a batch are written at once; a longer line is
	// written alone. Linux writes up to 4,096 bytes (PIPE_BUF) to a pipe all at once or,
	// if the program ends first, not at all.
	chunkSize = 4096

	// maxWaiting is how many bytes may wait to be written, without those of a batch:
	// some hundred lines, for a reader that pauses.
	maxWaiting = 64 << 10

	// courtesy is how long Write waits for its lines to be written, so that lines
	// on stdout and stderr are in order if somebody reads them.
	courtesy = 100 * time.Millisecond

	// patience is how long a reader may take for a chunk of a batch: longer than a
	// reader that works pauses, and short beside the 9 seconds of a stop.
	patience = 2 * time.Second

	// Grace is how long to wait for the line under way at the end of the program: even
	// slow readers take a long line in that time.
	Grace = 250 * time.Millisecond
)

// ErrDropped is the error of Write if the lines were dropped.
var ErrDropped = errors.New("the log is not read")

// Lines is a batch of lines. Its methods are called by one goroutine at a time.
type Lines interface {
	// Len returns the number of lines.
	Len() int
	// Append appends line i and its newline to dst.
	Append(dst []byte, i int) []byte
}

// Writer writes lines to stdout or stderr, one after the other, in a goroutine of
// its own. A line is written whole or not at all. Lines for which there is no room
// are dropped: hits are worth more than their log.
//
// The methods of a Writer may be called by many goroutines at once.
type Writer struct {
	w    io.Writer
	null bool        // w keeps nothing
	turn *sync.Mutex // held during a write to w; shared by two Writers to one file
	rest []byte      // the rest of a line of which w has taken a part

	mu       sync.Mutex
	queue    []entry
	waiting  int           // bytes of lines in queue and under way
	dropped  int           // lines that Write has dropped and not reported yet
	batch    *Batch        // in queue or under way
	done     chan struct{} // closed when everything is written; nil while nothing is
	deadline time.Time     // no line is begun after it; zero for none
}

// An entry of the queue is some lines or a batch.
type entry struct {
	text  []byte
	batch *Batch
}

// Batch is a batch of lines that a Writer has accepted.
type Batch struct {
	lines Lines // nil once it is not needed; guarded by the Writer's mu
	done  chan struct{}
	taken bool
}

// Done returns a channel that is closed when the lines are written, or when the
// rest of them is left out: because of an error, because the reader took no chunk
// for two seconds, or because the deadline has passed.
func (b *Batch) Done() <-chan struct{} { return b.done }

// Taken reports whether every line is written, and not to the null device. It may
// be called when Done is closed.
func (b *Batch) Taken() bool { return b.taken }

// New returns a Writer that writes to w. Nobody else may write to w.
func New(w io.Writer) *Writer {
	null := false
	if file, ok := w.(*os.File); ok {
		// Go's runtime opens the null device in place of a closed stdout.
		device, err := os.Stat(os.DevNull)
		info, err2 := file.Stat()
		null = err == nil && err2 == nil && os.SameFile(device, info)
	}
	return &Writer{w: w, null: null, turn: new(sync.Mutex)}
}

// NewPair returns Writers for stdout and stderr. If both are the same file, they
// take turns, so that no line is written into another one.
func NewPair(stdout, stderr io.Writer) (out, err *Writer) {
	out, err = New(stdout), New(stderr)
	a, isFile := stdout.(*os.File)
	b, areFiles := stderr.(*os.File)
	if isFile && areFiles {
		infoA, errA := a.Stat()
		infoB, errB := b.Stat()
		if errA == nil && errB == nil && os.SameFile(infoA, infoB) {
			err.turn = out.turn
		}
	}
	return out, err
}

// Write has p written, which must be whole lines. If nothing else waits to be
// written, Write waits a moment for its lines. It returns ErrDropped if there is no
// room.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	if w.waiting > 0 && w.waiting+len(p) > maxWaiting || w.expired() {
		w.dropped += bytes.Count(p, []byte("\n"))
		w.mu.Unlock()
		return 0, ErrDropped
	}
	wait := w.done == nil
	if w.dropped > 0 {
		w.enqueue(entry{text: fmt.Appendf(nil, "pixel-ping: %s left out of the log here\n", plural(w.dropped))})
		w.dropped = 0
	}
	w.enqueue(entry{text: bytes.Clone(p)}) // p is the caller's again when Write returns
	done := w.done
	w.mu.Unlock()
	if wait {
		select {
		case <-done:
		case <-time.After(courtesy):
		}
	}
	return len(p), nil
}

// Batch has lines written, and returns at once. There is one batch at a time:
// until all lines of the last one are written, or it is certain that nobody reads
// them, Batch returns nil and leaves the lines out. The lines must not change
// until the Batch is done.
func (w *Writer) Batch(lines Lines) *Batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.batch != nil || w.expired() {
		return nil
	}
	w.batch = &Batch{lines: lines, done: make(chan struct{})}
	w.enqueue(entry{batch: w.batch})
	return w.batch
}

// SetDeadline sets the time after which no more lines are begun. What waits then
// is dropped, and a batch that is not written is done. Of several deadlines, the
// earliest counts.
func (w *Writer) SetDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.deadline.IsZero() && w.deadline.Before(t) {
		return
	}
	w.deadline = t
	time.AfterFunc(time.Until(t), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.finish(w.batch, false)
	})
}

// Wait waits until everything is written, but no longer than d. It reports whether
// everything is written.
func (w *Writer) Wait(d time.Duration) bool {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	if done == nil {
		return true
	}
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// expired, enqueue and finish are called with mu held.

func (w *Writer) expired() bool { return !w.deadline.IsZero() && !time.Now().Before(w.deadline) }

func (w *Writer) enqueue(e entry) {
	w.queue = append(w.queue, e)
	w.waiting += len(e.text)
	if w.done == nil {
		w.done = make(chan struct{})
		go w.drain()
	}
}

// finish ends a batch, unless it has ended already, and lets go of its lines.
func (w *Writer) finish(b *Batch, taken bool) {
	if b != nil && b.lines != nil {
		b.lines, b.taken = nil, taken
		close(b.done)
	}
}

// drain writes what is in the queue, and returns when it is empty.
func (w *Writer) drain() {
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			close(w.done)
			w.done, w.waiting = nil, 0
			w.mu.Unlock()
			return
		}
		next := w.queue[0]
		w.queue = slices.Delete(w.queue, 0, 1)
		w.mu.Unlock()
		if next.batch != nil {
			w.writeBatch(next.batch)
			continue
		}
		w.write(next.text)
		w.mu.Lock()
		w.waiting -= len(next.text)
		w.mu.Unlock()
	}
}

// writeBatch writes the lines of b in chunks. If the reader does not take a chunk
// in time, it leaves the rest out, and lets go of the lines at once.
func (w *Writer) writeBatch(b *Batch) {
	taken, abandoned := !w.null, false
	for i, buf := 0, []byte(nil); ; {
		buf, i = w.chunk(b, i, buf)
		if len(buf) == 0 {
			break
		}
		impatient := time.AfterFunc(patience, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.finish(b, false)
		})
		ok := w.write(buf)
		abandoned = !impatient.Stop()
		if !ok {
			taken = false
			break
		}
	}
	if abandoned {
		w.write([]byte("pixel-ping: more lines were left out of the log here\n"))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finish(b, taken)
	w.batch = nil
}

// chunk returns lines of b from line i on, in buf, and the number of the next
// line. It returns none after the last line, or if b has ended.
func (w *Writer) chunk(b *Batch, i int, buf []byte) ([]byte, int) {
	w.mu.Lock()
	lines := b.lines
	w.mu.Unlock()
	buf = buf[:0]
	for lines != nil && i < lines.Len() {
		whole := len(buf)
		buf = lines.Append(buf, i)
		if whole > 0 && len(buf) > chunkSize {
			return buf[:whole], i
		}
		i++
	}
	return buf, i
}

// write writes whole lines, and reports whether all of them are written. If only a
// part of a line is written, the next call writes the rest of that line first.
func (w *Writer) write(lines []byte) bool {
	w.mu.Lock()
	expired := w.expired()
	w.mu.Unlock()
	if expired {
		return false
	}
	w.turn.Lock()
	defer w.turn.Unlock()
	text, cut := lines, len(w.rest) > 0
	if cut {
		text = append(w.rest, lines...)
	}
	n, _ := w.w.Write(text)
	w.rest = nil
	if n > 0 {
		cut = text[n-1] != '\n'
	}
	if cut {
		end := n + bytes.IndexByte(text[n:], '\n') + 1
		w.rest = bytes.Clone(text[n:end])
	}
	return n == len(text)
}

// Plural returns n and the noun for it: "1 hit", "2 hits".
func Plural[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// plural returns a number of lines and the verb for it.
func plural(lines int) string {
	if lines == 1 {
		return "1 line was"
	}
	return fmt.Sprintf("%d lines were", lines)
}
