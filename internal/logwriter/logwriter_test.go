package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// hour is more time than any test takes, in a bubble.
const hour = time.Hour

// A slowFile takes a chunk when the test receives from taken.
type slowFile struct{ taken chan string }

func (f slowFile) Write(p []byte) (int, error) {
	f.taken <- ""        // p is read only when the reader is there
	f.taken <- string(p) // and taken as a whole
	return len(p), nil
}

// read returns the next chunk that was written to f.
func (f slowFile) read() string {
	<-f.taken
	return <-f.taken
}

// readAll reads everything that is written to f, until it is closed.
func (f slowFile) readAll(each time.Duration) (all string) {
	for range f.taken {
		if each > 0 {
			<-time.After(each)
		}
		all += <-f.taken
	}
	return all
}

// lines is a batch of lines.
type lines []string

func (l lines) Len() int                        { return len(l) }
func (l lines) Append(dst []byte, i int) []byte { return append(append(dst, l[i]...), '\n') }

// numbered returns n lines of some 100 bytes.
func numbered(n int) (l lines) {
	for i := range n {
		l = append(l, fmt.Sprint(i)+strings.Repeat("x", 100))
	}
	return l
}

func (l lines) text() string { return strings.Join(l, "\n") + "\n" }

func expectDuration(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
}

func TestWrite(t *testing.T) {
	var out strings.Builder
	w := New(&out)
	for i := range 3 {
		if n, err := fmt.Fprintln(w, i); n != 2 || err != nil {
			t.Errorf("%d bytes are written, error %v; want 2 and none", n, err)
		}
	}
	// Nobody has to wait for lines if they are written at once.
	if got := out.String(); got != "0\n1\n2\n" {
		t.Errorf("the log is %q", got)
	}
}

// The caller may use its buffer again, though the reader has not read it yet.
func TestBufferIsTheCallersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		line := []byte("a\n")
		w.Write(line)
		line[0] = 'b'
		if got := file.read(); got != "a\n" {
			t.Errorf("%q is written, want a", got)
		}
	})
}

// A reader that does not read delays the first Write for a moment and the others
// not at all. Whole lines are dropped, and it is said how many.
func TestReaderThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		began := time.Now()
		written, dropped := "", 0
		for i := range 3000 {
			line := fmt.Sprintf("%d%s\n", i, strings.Repeat("x", 100))
			if _, err := io.WriteString(w, line); err == nil {
				written += line
			} else if dropped++; err != ErrDropped {
				t.Errorf("error %v, want %v", err, ErrDropped)
			}
		}
		expectDuration(t, began, courtesy)
		if len(written) > maxWaiting || dropped == 0 {
			t.Errorf("%d bytes are waiting, want at most %d", len(written), maxWaiting)
		}
		for got := ""; got != written; {
			if got += file.read(); !strings.HasPrefix(written, got) {
				t.Fatalf("%q is written", got)
			}
		}
		synctest.Wait()
		go io.WriteString(w, "again\n")
		got := file.read() + file.read()
		if want := fmt.Sprintf("pixel-ping: %d lines were left out of the log here\nagain\n", dropped); got != want {
			t.Errorf("%q is written, want %q", got, want)
		}
	})
}

func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := New(&out)
		all := append(numbered(1000), strings.Repeat("long", 5000), "", "last")
		batch := w.Batch(all)
		io.WriteString(w, "--- flushed ---\n")
		<-batch.Done()
		w.Wait(hour)
		if got, want := out.String(), all.text()+"--- flushed ---\n"; got != want || !batch.Taken() {
			t.Errorf("taken is %v, and the log is %.300q", batch.Taken(), got)
		}
	})
}

// A slow reader gets every line of a batch, though Batch and Write return at once.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		began, all := time.Now(), numbered(500)
		batch := w.Batch(all)
		io.WriteString(w, "--- flushed ---\n")
		expectDuration(t, began, 0)
		go func() {
			w.Wait(hour)
			close(file.taken)
		}()
		got := file.readAll(patience - time.Millisecond)
		if got != all.text()+"--- flushed ---\n" || !batch.Taken() {
			t.Errorf("taken is %v, and the log is %.300q", batch.Taken(), got)
		}
	})
}

// While a batch is being written, there is no second one.
func TestOneBatchAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		if w.Batch(numbered(1)) == nil || w.Batch(numbered(1)) != nil {
			t.Error("the second batch is not refused, or the first one is")
		}
		file.read()
		synctest.Wait()
		if w.Batch(numbered(1)) == nil {
			t.Error("a batch is refused, though nothing is being written")
		}
		file.read()
	})
}

// A batch that nobody reads is given up, so that its memory is free: the lines are
// cut at the end of a line, and what follows is written when the reader is back.
func TestBatchThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		began := time.Now()
		batch := w.Batch(numbered(1000))
		<-batch.Done()
		expectDuration(t, began, patience)
		if batch.Taken() || batch.lines != nil {
			t.Error("a batch that nobody reads is taken, or kept")
		}
		if w.Batch(numbered(1)) != nil {
			t.Error("a second batch is accepted, though nobody reads")
		}
		io.WriteString(w, "--- flushed ---\n")
		first := file.read()
		if !strings.HasPrefix(numbered(1000).text(), first) || !strings.HasSuffix(first, "x\n") {
			t.Errorf("%q is written first", first)
		}
		if got := file.read(); got != "pixel-ping: more lines were left out of the log here\n" {
			t.Errorf("%q is written second", got)
		}
		if got := file.read(); got != "--- flushed ---\n" {
			t.Errorf("%q is written third", got)
		}
	})
}

// fullDisk takes room bytes, then fails as a full disk does.
type fullDisk struct {
	room int
	text string
}

func (d *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.text += string(p[:n])
	if d.room -= n; n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// A line of which a part was written is completed before anything else is written.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for room := range 20 {
			disk := &fullDisk{room: room}
			w := New(disk)
			batch := w.Batch(lines{"1:\taaaa", "15:\tb", "2:\tc"})
			<-batch.Done()
			if want := room >= len("1:\taaaa\n15:\tb\n2:\tc\n"); batch.Taken() != want {
				t.Errorf("room for %d bytes: taken is %v, want %v", room, batch.Taken(), want)
			}
			for range 3 { // while there is no room, and when there is
				io.WriteString(w, "5:\ty\n")
			}
			disk.room = 1000
			io.WriteString(w, "6:\tz\n")
			w.Wait(hour)
			for line := range strings.Lines(disk.text) {
				if !strings.Contains("1:\taaaa\n15:\tb\n2:\tc\n5:\ty\n6:\tz\n", line) || !strings.Contains(line, ":") {
					t.Errorf("room for %d bytes: there is a line %q", room, line)
				}
			}
			if !strings.HasSuffix(disk.text, "\n6:\tz\n") && disk.text != "6:\tz\n" {
				t.Errorf("room for %d bytes: the log is %q", room, disk.text)
			}
		}
	})
}

// brokenPipe is a log whose reader has gone.
type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestReaderThatHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := New(brokenPipe{})
		batch := w.Batch(numbered(100))
		<-batch.Done()
		if batch.Taken() {
			t.Error("a batch is taken, though its reader has gone")
		}
		expectDuration(t, began, 0)
	})
}

// What the null device takes is written nowhere. Go's runtime opens the device in
// place of a stdout that is closed.
func TestNullDevice(t *testing.T) {
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	batch := New(file).Batch(lines{"a"})
	<-batch.Done()
	if batch.Taken() {
		t.Error("a batch is taken, though it was written to the null device")
	}

	other, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	batch = New(other).Batch(lines{"a"})
	if <-batch.Done(); !batch.Taken() {
		t.Error("a batch is not taken, though it was written to a file")
	}
}

// At the deadline a batch is done, and nothing is begun after it. The line under
// way is written whole.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		began := time.Now()
		w.SetDeadline(began.Add(hour))
		w.SetDeadline(began.Add(time.Second))
		w.SetDeadline(began.Add(hour))
		batch := w.Batch(numbered(1000))
		io.WriteString(w, "--- flushed ---\n")
		<-batch.Done()
		expectDuration(t, began, time.Second)
		if batch.Taken() || w.Batch(numbered(1)) != nil {
			t.Error("a batch is taken after the deadline")
		}
		if _, err := io.WriteString(w, "late\n"); err != ErrDropped {
			t.Errorf("error %v, want %v", err, ErrDropped)
		}
		if w.Wait(Grace) {
			t.Error("everything is said to be written, though a chunk is under way")
		}
		expectDuration(t, began, time.Second+Grace)
		if got := file.read(); !strings.HasSuffix(got, "x\n") {
			t.Errorf("%q is written, want whole lines", got)
		}
		if !w.Wait(hour) {
			t.Error("something is said to be left, though the deadline has passed")
		}
	})
}

// Chunks end with a line, and only a line that is longer than a chunk is written
// in one that is longer: the system writes the others whole or not at all.
func TestChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := slowFile{make(chan string)}
		w := New(file)
		long := strings.Repeat("x", 3*chunkSize)
		batch := w.Batch(append(append(numbered(200), long), numbered(200)...))
		for ended := false; !ended; {
			chunk := file.read()
			if !strings.HasSuffix(chunk, "x\n") || len(chunk) > chunkSize && chunk != long+"\n" {
				t.Errorf("there is a chunk of %d bytes: %.20q...", len(chunk), chunk)
			}
			synctest.Wait()
			select {
			case <-batch.Done():
				ended = true
			default:
			}
		}
	})
}

// With stdout and stderr in one file, a line of the one is not written into a line
// of the other.
func TestOneFileForBoth(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	again, err := os.Open(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	other, err := os.Create(t.TempDir() + "/other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if out, err := NewPair(file, again); out.turn != err.turn {
		t.Error("the Writers of one file do not take turns")
	}
	for _, pair := range [][2]io.Writer{{file, other}, {file, io.Discard}, {io.Discard, io.Discard}} {
		if out, err := NewPair(pair[0], pair[1]); out.turn == err.turn {
			t.Error("the Writers of two files take turns, though they need not")
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
