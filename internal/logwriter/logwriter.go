// Package logwriter writes the log of a daemon that must not depend on who reads
// it: however slowly stdout or stderr is read, or not at all, the daemon goes on.
package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// chunkSize is how many bytes are written at once; a longer line is written alone. Linux
	// writes 4,096 bytes (PIPE_BUF) to a pipe all at once or, if the program ends first, not at all.
	chunkSize = 4096
	// maxWaiting is how many texts may wait to be written, for a reader that pauses.
	maxWaiting = 500

	// courtesy is how long Write waits, so that stdout and stderr are in order if somebody reads.
	courtesy = 100 * time.Millisecond
	// patience is how long a write may take before the block is given up: longer than
	// a reader that works pauses, and short beside the 9 seconds of a stop.
	patience = 2 * time.Second
	// Grace is how long to wait at the end of the program: slow readers take a long line in that time.
	Grace = 250 * time.Millisecond
)

// Writer writes lines to a file, in a goroutine that runs while there are any. If the file
// takes only a part of a line, the rest of the line comes first in the next write. Lines for
// which there is no room, and lines that the file does not take, are left out, and the log says
// in their place how many. The methods of a Writer may be called by many goroutines at once.
type Writer struct {
	file io.Writer
	info os.FileInfo // describes file; nil if it is no file of the system's
	null bool        // file is the null device

	mu      sync.Mutex    // guards what follows, and the entries
	queue   []*Entry      // the first one is under way
	idle    chan struct{} // closed when queue becomes empty; nil while it is
	block   *Entry        // the block in queue that is not done; nil if there is none
	late    bool          // the deadline has passed
	began   time.Time     // when the write under way began; zero if there is none
	rest    []byte        // the rest of a line of which file has taken a part
	dropped int           // lines that were left out after the last entry of queue
	missing int           // lines that were left out and that the log does not mention yet
}

// Entry is a text or a block of lines that a Writer has accepted.
type Entry struct {
	count   int                            // its lines
	line    func(dst []byte, i int) []byte // appends line i to dst; nil if the block is done
	dropped int                            // lines that were left out before it
	taken   bool
	done    chan struct{} // closed at the end of a block
}

// Taken waits until the block is done: all lines are written, or the rest is left out
// because of an error, because a write took two seconds, or because the deadline has
// passed. It reports whether all lines are written, and not to the null device.
func (e *Entry) Taken() bool {
	<-e.done
	return e.taken
}

// New returns a Writer that writes to w. Nobody else may write to w.
func New(w io.Writer) *Writer {
	f, _ := w.(*os.File)
	info, err := f.Stat() // an error if w is no file
	return &Writer{file: w, info: info, null: err == nil && isNull(f, info)}
}

// NewPair returns Writers for stdout and stderr. If both are the same file, out and err
// are the same Writer: all lines are in order, and none is written into another one.
func NewPair(stdout, stderr io.Writer) (out, err *Writer) {
	out, err = New(stdout), New(stderr)
	// On Windows, SameFile takes all pipes and devices for the same file.
	if os.SameFile(out.info, err.info) && (runtime.GOOS != "windows" || out.info.Mode().IsRegular()) {
		err = out
	}
	return out, err
}

// Write has p written, which must be whole lines. It never fails. If nothing else waits
// to be written, Write waits a moment for its lines.
func (w *Writer) Write(p []byte) (int, error) {
	lines := slices.Collect(bytes.Lines(bytes.Clone(p))) // p is the caller's again when Write returns
	w.mu.Lock()
	wait := len(w.queue) == 0
	if len(w.queue) < maxWaiting {
		w.enqueue(len(lines), func(dst []byte, i int) []byte { return append(dst, lines[i]...) })
	} else {
		w.dropped += len(lines)
	}
	w.mu.Unlock()
	if wait {
		w.Wait(courtesy)
	}
	return len(p), nil
}

// Block has count lines written, and returns at once. Line appends line i and its newline to
// dst, without waiting, until the block is done. Block returns nil, and leaves the lines out,
// while an earlier block is not done, while a write takes over two seconds, and after the deadline.
func (w *Writer) Block(count int, line func(dst []byte, i int) []byte) *Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.block != nil || w.unread() {
		return nil
	}
	w.block = w.enqueue(count, line)
	return w.block
}

// SetDeadline sets the time at which the block is done, though not all of its lines are
// written, and after which there are no blocks. Of several deadlines, the earliest counts.
func (w *Writer) SetDeadline(t time.Time) {
	time.AfterFunc(time.Until(t), func() { w.giveUp(true) })
}

// Wait waits until everything is written, but no longer than d.
func (w *Writer) Wait(d time.Duration) {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-time.After(d):
		}
	}
}

// giveUp ends the block after the deadline, or if the write under way takes too long.
func (w *Writer) giveUp(late bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = w.late || late
	if w.unread() {
		w.endBlock(false)
	}
}

// The methods below are called with mu held. Unread reports whether there can be no block now.

func (w *Writer) unread() bool { return w.late || !w.began.IsZero() && time.Since(w.began) >= patience }

func (w *Writer) endBlock(taken bool) {
	if e := w.block; e != nil {
		w.block, e.line, e.taken = nil, nil, taken
		close(e.done)
	}
}

func (w *Writer) enqueue(count int, line func(dst []byte, i int) []byte) *Entry {
	e := &Entry{count: count, line: line, dropped: w.dropped, done: make(chan struct{})}
	w.queue, w.dropped = append(w.queue, e), 0
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.run()
	}
	return e
}

// run writes what is in the queue. Each write begins with what is due: the rest of a
// line, and how many lines are missing.
func (w *Writer) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for text := make([]byte, 0, 2*chunkSize); len(w.queue) > 0; w.queue = w.queue[1:] {
		e, i, ok := w.queue[0], 0, true
		w.missing += e.dropped
		for ok && i < e.count && e.line != nil {
			text = append(text[:0], w.rest...)
			if w.missing > 0 {
				text = fmt.Appendf(text, "pixel-ping: %s left out of the log here\n", Plural(w.missing, "line"))
			}
			due := len(text)
			for more := text; i < e.count; i, text = i+1, more {
				if more = e.line(text, i); len(text) > 0 && len(more) > chunkSize {
					break
				}
			}
			ok = w.write(text, due)
		}
		w.missing += e.count - i
		if e == w.block {
			w.endBlock(ok && !w.null)
		}
	}
	close(w.idle)
	w.idle = nil
}

// write writes text, of which the first bytes are due, and reports whether all is written.
// It does not hold mu while it writes.
func (w *Writer) write(text []byte, due int) bool {
	w.began = time.Now()
	w.mu.Unlock()
	impatient := time.AfterFunc(patience, func() { w.giveUp(false) })
	n, err := w.file.Write(text)
	for more := 0; errors.Is(err, syscall.EAGAIN); n += more { // a full pipe that does not block
		time.Sleep(10 * time.Millisecond)
		more, err = w.file.Write(text[n:])
	}
	impatient.Stop()
	w.mu.Lock()
	w.began = time.Time{}
	end := n
	if n == 0 && len(w.rest) > 0 || n > 0 && text[n-1] != '\n' { // a line is cut
		end += bytes.IndexByte(text[n:], '\n') + 1
	}
	w.rest = bytes.Clone(text[n:end])
	if end >= due {
		w.missing = 0
	}
	w.missing += bytes.Count(text[max(end, due):], []byte("\n"))
	return n == len(text)
}

// Plural returns n and the noun for it: "1 hit", "2 hits".
func Plural[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
