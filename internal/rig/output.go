package rig

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// Output collects what a process writes. Its methods may be called by many
// goroutines at once.
type Output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed by the next Write
}

// NewOutput returns an empty Output.
func NewOutput() *Output {
	return &Output{changed: make(chan struct{})}
}

// Write implements io.Writer. It never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

// String returns all that was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// WaitLine waits for a whole line that begins with prefix and returns it without
// its line feed. It does not look at the first skip bytes of the output.
func (o *Output) WaitLine(t testing.TB, skip int, prefix string) string {
	t.Helper()
	timeout := time.After(Deadline)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		for line := range strings.Lines(text[skip:]) {
			if strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "\n") {
				return strings.TrimSuffix(line, "\n")
			}
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no line begins with %q; the output is:\n%s", prefix, text)
		}
	}
}
