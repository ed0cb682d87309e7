package main

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long a write to the log may take.
const patience = 2 * time.Second

// logWriter writes to stdout or stderr for a daemon that must not depend on who
// reads them. A slow reader delays a write, and with it the flush. One that does
// not read, though it holds the pipe open, has what is written dropped until it
// reads again: the hits are worth more than their log.
type logWriter struct {
	w     io.Writer
	hurry atomic.Int64 // Unix nanoseconds, after which patience is short; 0 for never

	mu      sync.Mutex
	writing atomic.Bool // a write goes on, by itself if nobody waits for it any more
}

// Write reports no error, as there is nobody to be told of it. It may be called
// by many goroutines at once.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.writing.Load() {
		return len(p), nil
	}
	wait := patience
	if at := l.hurry.Load(); at != 0 {
		wait = max(min(wait, time.Until(time.Unix(0, at))), patience/20)
	}
	text := bytes.Clone(p)
	written := make(chan struct{})
	l.writing.Store(true)
	go func() {
		l.w.Write(text)
		l.writing.Store(false)
		close(written)
	}()
	select {
	case <-written:
	case <-time.After(wait):
	}
	return len(p), nil
}

// hurryAfter leaves the log d of time; then nothing waits for its reader.
func (l *logWriter) hurryAfter(d time.Duration) {
	l.hurry.Store(time.Now().Add(d).UnixNano())
}
