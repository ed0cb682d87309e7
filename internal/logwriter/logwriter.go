// Package logwriter writes the log for a daemon that must not depend on who
// reads it: a write to stdout or stderr never blocks the daemon for long.
package logwriter

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// patience is how long a write may take: longer than a reader that works
	// pauses, and short beside the 9 seconds of a stop.
	patience = 2 * time.Second

	// Grace is how long a write may take after the deadline, so that a reader
	// that works still gets the last line of a program.
	Grace = patience / 20
)

// Writer writes to stdout or stderr. A slow reader delays a write, by at most
// two seconds. While a reader holds the other end of a pipe open and does not
// read, what is written is dropped: hits are worth more than their log.
//
// The methods of a Writer may be called by many goroutines at once.
type Writer struct {
	w        io.Writer
	deadline atomic.Int64 // Unix nanoseconds; 0 for none

	mu    sync.Mutex  // held by the one Write that is under way
	stuck atomic.Bool // w.Write has not returned yet, though Write may have
}

// New returns a Writer that writes to w. Nobody else may write to w.
func New(w io.Writer) *Writer { return &Writer{w: w} }

// SetDeadline sets the time from which a write takes Grace at most.
func (l *Writer) SetDeadline(t time.Time) { l.deadline.Store(t.UnixNano()) }

// Write writes p, or drops it. It reports no error, as there is nobody to be
// told of it.
func (l *Writer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck.Load() {
		return len(p), nil
	}
	wait := patience
	if deadline := l.deadline.Load(); deadline != 0 {
		wait = max(min(wait, time.Until(time.Unix(0, deadline))), Grace)
	}
	text := bytes.Clone(p) // p is the caller's again when Write returns
	written := make(chan struct{})
	l.stuck.Store(true)
	go func() {
		l.w.Write(text)
		l.stuck.Store(false)
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(wait):
	}
	return len(p), nil
}

// Plural returns n and the noun for it: "1 hit", "2 hits".
func Plural[N int | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
