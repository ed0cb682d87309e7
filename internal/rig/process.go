// Package rig is what the tests of whole programs share: processes with their
// output, and endpoints that answer as they are told to.
package rig

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Deadline bounds whatever a test waits for.
const Deadline = 20 * time.Second

// Process is a program that runs, and what it has written so far. Stdout and
// Stderr may be one Output, which then has both in the order of writing.
type Process struct {
	Cmd            *exec.Cmd
	Stdout, Stderr *Output
	ended          chan struct{}
}

// Start starts a program whose output goes to stdout and stderr. It is killed
// when the test ends.
func Start(t testing.TB, cmd *exec.Cmd, stdout, stderr *Output) *Process {
	t.Helper()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	p := StartCommand(t, cmd)
	p.Stdout, p.Stderr = stdout, stderr
	return p
}

// StartCommand is Start for a program whose output goes elsewhere.
func StartCommand(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	// A process of its own that holds the output open does not keep the test.
	cmd.WaitDelay = time.Second
	p := &Process{Cmd: cmd, ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// Signal sends a signal to the process.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Wait waits for the end of the process and returns its exit status.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Deadline):
		t.Fatalf("%v does not end", p.Cmd.Args)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Output collects what a process writes. Its methods may be called by many
// goroutines at once.
type Output struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed at the next Write
}

// NewOutput returns an empty Output.
func NewOutput() *Output {
	return &Output{changed: make(chan struct{})}
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// WaitLine waits for a line that begins with prefix, behind the first skip bytes
// of the output, and returns it without its end.
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
			t.Fatalf("no line %q; the output is:\n%s", prefix, text)
		}
	}
}

// WriteConfig writes a configuration into a folder of the test and returns its
// path.
func WriteConfig(t testing.TB, settings map[string]any) string {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// FreePort returns the number of a port that was free a moment ago.
func FreePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}
