package logwriter

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is the other end of a log. Each line that is received from the channel
// was written.
type pipe chan string

func (p pipe) Write(line []byte) (int, error) {
	p <- string(line)
	return len(line), nil
}

func expectDuration(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
}

func TestWriteInOrder(t *testing.T) {
	var out strings.Builder
	w := New(&out)
	for i := range 3 {
		if n, err := fmt.Fprintln(w, i); n != 2 || err != nil {
			t.Errorf("%d bytes are written, error %v; want 2 and none", n, err)
		}
	}
	if got := out.String(); got != "0\n1\n2\n" {
		t.Errorf("the log is %q", got)
	}
}

// The caller may use its buffer again, though the reader has not read yet.
func TestBufferIsTheCallersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(pipe)
		w := New(out)
		line := []byte("a\n")
		w.Write(line)
		line[0] = 'b'
		if got := <-out; got != "a\n" {
			t.Errorf("%q was written, want a", got)
		}
	})
}

// A slow reader gets every line.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(pipe)
		w := New(out)
		go func() {
			for i := range 10 {
				fmt.Fprintln(w, i)
			}
		}()
		for i := range 10 {
			<-time.After(patience - time.Millisecond)
			if got, want := <-out, fmt.Sprintln(i); got != want {
				t.Errorf("%q was written, want %q", got, want)
			}
		}
	})
}

// A reader that does not read delays one write, not each, and gets what is
// written once it reads again.
func TestReaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(pipe)
		w := New(out)
		began := time.Now()
		for i := range 100 {
			fmt.Fprintln(w, i)
		}
		expectDuration(t, began, patience)
		first := <-out
		synctest.Wait()
		go fmt.Fprintln(w, "again")
		if second := <-out; first != "0\n" || second != "again\n" {
			t.Errorf("%q and %q were written, want 0 and again", first, second)
		}
	})
}

// After the deadline a reader that does not read delays a write by Grace only.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := make(pipe)
		w := New(out)
		w.SetDeadline(time.Now().Add(time.Second))
		began := time.Now()
		io.WriteString(w, "a\n")
		expectDuration(t, began, time.Second)
		<-out
		synctest.Wait()
		began = time.Now()
		io.WriteString(w, "b\n")
		expectDuration(t, began, Grace)
		if got := <-out; got != "b\n" {
			t.Errorf("%q was written, want b", got)
		}
	})
}

// gone is a log whose reader has gone.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

// A log that can not be written is no error for who writes.
func TestReaderThatHasGone(t *testing.T) {
	for range 2 {
		if n, err := io.WriteString(New(gone{}), "a\n"); n != 2 || err != nil {
			t.Errorf("%d bytes are written, error %v; want 2 and none", n, err)
		}
	}
}

func TestPlural(t *testing.T) {
	for n, want := range map[int64]string{0: "0 hits", 1: "1 hit", 2: "2 hits"} {
		if got := Plural(n, "hit"); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
