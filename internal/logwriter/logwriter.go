// Package logwriter writes the log of a daemon that goes on however slowly stdout and stderr are read, or not at all.
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
	// chunkSize is how many bytes are written at once; a longer line is written alone. Linux writes them to a pipe
	// whole or, if the program ends first, not at all. The last 256 bytes of their page are left for the next lines.
	chunkSize = 4096 - 256
	// maxWaiting is how many texts may wait, for a reader that pauses. Once they take maxBytes, only short ones follow.
	maxWaiting, maxBytes = 500, 16 << 20
	// courtesy is how long Write waits, so that stdout and stderr are in order if somebody reads.
	courtesy = 100 * time.Millisecond
	// patience is how long a write may take before the block is given up: longer than a reader that works pauses.
	patience = 2 * time.Second
	// Grace is how long to wait at the end of the program: slow readers take a long line in that time.
	Grace = 500 * time.Millisecond
)

// Writer writes lines to a file, in a goroutine that runs while there are any. What the file has not taken of a line
// comes first in the next write. Lines for which there is no room, and lines that the file does not take, are left out,
// and the log says in their place how many. Many goroutines may call the methods of a Writer at once.
type Writer struct {
	file io.Writer
	info os.FileInfo // describes file; nil if it is no file of the system's
	null bool        // file is the null device

	mu       sync.Mutex    // guards what follows, and the entries
	queue    []*Entry      // the first one is under way
	waiting  int           // the bytes of the texts in queue
	idle     chan struct{} // closed when queue becomes empty; nil while it is
	block    *Entry        // the block in queue that is not done; nil if there is none
	deadline time.Time     // zero if there is none
	began    time.Time     // when the write under way began; zero if there is none
	took     time.Duration // how long the last write took
	rest     []byte        // the rest of a line of which file has taken a part
	missing  int           // lines that were left out and that the log does not mention yet
}

// Entry is a text or a block of lines that a Writer has accepted.
type Entry struct {
	count   int                            // its lines
	size    int                            // the bytes that a text takes; 0 for a block
	line    func(dst []byte, i int) []byte // appends line i to dst; nil if the entry is done
	dropped int                            // lines that were left out after it
	taken   bool
	done    chan struct{} // closed at the end of a block
}

// Taken waits until the block is done: all lines are written, or the rest is left out after an error, because a write
// took two seconds, or for the deadline. It reports whether all lines are written, and not to the null device.
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

// NewPair returns a Writer for stdout and one for stderr, or one for both if they are one file: its lines are in order.
func NewPair(stdout, stderr io.Writer) (out, err *Writer) {
	out, err = New(stdout), New(stderr)
	// On Windows, SameFile takes all pipes and devices for the same file.
	if os.SameFile(out.info, err.info) && (runtime.GOOS != "windows" || out.info.Mode().IsRegular()) {
		err = out
	}
	return out, err
}

// Write has p written, which must be whole lines. It never fails. If no others are to be written, it waits up to 100 ms.
func (w *Writer) Write(p []byte) (int, error) {
	lines := slices.Collect(bytes.Lines(bytes.Clone(p))) // p is the caller's again when Write returns
	w.mu.Lock()
	if len(w.queue) == 0 {
		defer w.Wait(courtesy)
	}
	defer w.mu.Unlock()
	if len(w.queue) < maxWaiting && (w.waiting < maxBytes || len(p) <= chunkSize) {
		w.enqueue(len(lines), len(p)+24*len(lines), func(dst []byte, i int) []byte { return append(dst, lines[i]...) })
	} else {
		w.queue[len(w.queue)-1].dropped += len(lines)
	}
	return len(p), nil
}

// Block has count lines written, and returns at once. line, which must not wait, appends line i and its newline to dst.
// Block leaves the lines out, and returns nil, while another is not done or a write takes 2 s, and after the deadline.
func (w *Writer) Block(count int, line func(dst []byte, i int) []byte) *Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.block != nil || w.unread() {
		return nil
	}
	w.block = w.enqueue(count, 0, line)
	return w.block
}

// SetDeadline sets the time after which no block is accepted, and at which one ends. Of several, the earliest counts.
// The block ends sooner if its last write took longer than what is left, so that there is time for the lines after it.
func (w *Writer) SetDeadline(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadline.IsZero() || t.Before(w.deadline) {
		w.deadline = t
	}
	time.AfterFunc(time.Until(t), w.giveUp)
}

// Left returns how long to wait for an important last line: until the deadline, and Grace more.
func (w *Writer) Left() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(time.Until(w.deadline), 0) + Grace
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
func (w *Writer) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unread() {
		w.endBlock(w.block, false)
	}
}

// unread reports whether there can be no block now. The methods below are called with mu held.
func (w *Writer) unread() bool {
	return !w.deadline.IsZero() && time.Until(w.deadline) <= w.took || !w.began.IsZero() && time.Since(w.began) >= patience
}

func (w *Writer) endBlock(e *Entry, taken bool) {
	if e != nil && e == w.block {
		w.block, e.line, e.taken = nil, nil, taken
		close(e.done)
	}
}

func (w *Writer) enqueue(count, size int, line func(dst []byte, i int) []byte) *Entry {
	e := &Entry{count: count, size: size, line: line, done: make(chan struct{})}
	w.queue, w.waiting = append(w.queue, e), w.waiting+size
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.run()
	}
	return e
}

// run writes the queue. Each write begins with what is due: the rest of a line, and how many lines are missing.
func (w *Writer) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for text := make([]byte, 0, 2*chunkSize); len(w.queue) > 0; w.queue = w.queue[1:] {
		e, i, ok := w.queue[0], 0, true
		for ok && i < e.count && e.line != nil && !(e == w.block && w.unread()) {
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
		w.missing += e.count - i + e.dropped
		w.endBlock(e, ok && i == e.count && !w.null)
		e.line, w.waiting = nil, w.waiting-e.size // Nothing else holds the text.
	}
	close(w.idle)
	w.idle = nil
}

// write writes text, whose first bytes are due, without holding mu, and reports whether all is written.
func (w *Writer) write(text []byte, due int) bool {
	w.began = time.Now()
	w.mu.Unlock()
	impatient := time.AfterFunc(patience, w.giveUp)
	n, err := w.file.Write(text)
	for more := 0; errors.Is(err, syscall.EAGAIN); n += more { // a full pipe that does not block
		time.Sleep(10 * time.Millisecond)
		more, err = w.file.Write(text[n:])
	}
	impatient.Stop()
	w.mu.Lock()
	w.began, w.took = time.Time{}, time.Since(w.began)
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
