package logwriter

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A reader takes what is written to it when the test calls read.
type reader chan string

func (r reader) Write(p []byte) (int, error) {
	r <- ""        // p is read only when the reader is there
	r <- string(p) // and taken as a whole
	return len(p), nil
}

// read returns what is written to r next.
func (r reader) read() string {
	<-r
	return <-r
}

// A writerFunc is a file.
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// lines is a block of lines.
type lines []string

func (l lines) append(dst []byte, i int) []byte { return append(append(dst, l[i]...), '\n') }

func (l lines) text() string { return strings.Join(l, "\n") + "\n" }

// write has w write l as a block.
func (l lines) write(w *Writer) *Entry { return w.Block(len(l), l.append) }

// numbered returns n lines of some 100 bytes.
func numbered(n int) (l lines) {
	for i := range n {
		l = append(l, fmt.Sprint(i)+strings.Repeat("x", 100))
	}
	return l
}

// pass lets time pass in a bubble, and whatever happens then happen.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func expectDuration(t *testing.T, began time.Time, want time.Duration) {
	t.Helper()
	if took := time.Since(began); took != want {
		t.Errorf("took %v, want %v", took, want)
	}
}

// expectDone checks whether a block is done.
func expectDone(t *testing.T, e *Entry, want bool) {
	t.Helper()
	select {
	case <-e.done:
		if !want {
			t.Error("the block is done")
		}
	default:
		if want {
			t.Error("the block is not done")
		}
	}
}

// Nobody has to wait for lines that are written at once.
func TestWrite(t *testing.T) {
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

// The caller may use its buffer again, though the reader has not read it yet.
func TestBufferIsTheCallersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		line := []byte("a\n")
		w.Write(line)
		line[0] = 'b'
		if got := log.read(); got != "a\n" {
			t.Errorf("%q is written, want a", got)
		}
	})
}

// A reader that does not read delays the first Write for 100 ms and the others not at
// all. There is room for 500 texts; the log says in their place how many are left out.
func TestTextsThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		began := time.Now()
		for i := range 700 {
			fmt.Fprintln(w, i)
		}
		expectDuration(t, began, 100*time.Millisecond)
		pass(time.Hour)
		for i := range 500 {
			if got, want := log.read(), fmt.Sprintln(i); got != want {
				t.Fatalf("%q is written, want %q", got, want)
			}
			if i == 0 {
				synctest.Wait()
				io.WriteString(w, "again\n")
			}
		}
		got := log.read()
		if want := "pixel-ping: 200 lines left out of the log here\nagain\n"; got != want {
			t.Errorf("%q is written, want %q", got, want)
		}
	})
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Texts that nobody reads take 16 MB, and one text more. They may be large, as keys are that the application refuses.
// Short ones are accepted behind them.
func TestLargeTextsThatNobodyReads(t *testing.T) {
	file, pipe := io.Pipe()
	w := New(pipe)
	text := bytes.Repeat([]byte("1:\t"+strings.Repeat("x", 96)+"\n"), 50_000)
	before := heap()
	for range 50 {
		w.Write(text)
	}
	if held := heap() - before; held < 16<<20 || held > 24<<20 {
		t.Errorf("%d MB are held for a log that nobody reads", held>>20)
	}
	runtime.KeepAlive(text)
	io.WriteString(w, "short\n")
	var log strings.Builder
	read := make(chan struct{})
	go func() {
		io.Copy(&log, file)
		close(read)
	}()
	w.Wait(time.Minute)
	io.WriteString(w, "last\n")
	w.Wait(time.Minute)
	pipe.Close()
	<-read
	taken := 3 * 50_000 // 6 MB each, with the slices for the lines
	if got := strings.Count(log.String(), "\n"); got != taken+3 {
		t.Errorf("%d lines are written, want %d", got, taken+3)
	}
	want := fmt.Sprintf("pixel-ping: %d lines left out of the log here\nshort\nlast\n", 50*50_000-taken)
	if !strings.HasSuffix(log.String(), want) {
		t.Errorf("the log does not end with %q", want)
	}
}

// A text that is written is not held, though another one waits behind it.
func TestWrittenTextsAreNotHeld(t *testing.T) {
	file, pipe := io.Pipe()
	w := New(pipe)
	text := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	before := heap()
	for range 12 {
		w.Write(text)
	}
	io.CopyN(io.Discard, file, 10*int64(len(text)))
	if held := heap() - before; held > 6<<20 {
		t.Errorf("%d MB are held, want 2 or 3", held>>20)
	}
	io.CopyN(io.Discard, file, 2*int64(len(text)))
	w.Wait(time.Minute)
}

// Each line of a text counts.
func TestLinesOfADroppedText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		for range 500 {
			io.WriteString(w, "a\n")
		}
		io.WriteString(w, "b\nb\nb\n")
		log.read()
		synctest.Wait()
		io.WriteString(w, "c\n")
		got := ""
		for range 500 {
			got = log.read()
		}
		if want := "pixel-ping: 3 lines left out of the log here\nc\n"; got != want {
			t.Errorf("%q is written, want %q", got, want)
		}
	})
}

func TestBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := New(&out)
		all := append(numbered(1000), strings.Repeat("long", 5000), "", "last")
		block := all.write(w)
		io.WriteString(w, "--- flushed ---\n")
		w.Wait(time.Hour)
		if taken := block.Taken(); !taken || out.String() != all.text()+"--- flushed ---\n" {
			t.Errorf("taken is %v, and the log is %.300q", taken, out.String())
		}
		pass(time.Hour)
		if !(lines{"much later"}).write(w).Taken() || !lines(nil).write(w).Taken() {
			t.Error("a block is not taken much later, or one without lines is not")
		}
	})
}

// A reader that takes almost two seconds for each chunk gets every line of a block,
// though Block and Write return at once, and "--- flushed ---" after them.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		w := New(writerFunc(func(p []byte) (int, error) {
			pass(1999 * time.Millisecond)
			return log.Write(p)
		}))
		began, all := time.Now(), numbered(500)
		block := all.write(w)
		io.WriteString(w, "--- flushed ---\n")
		expectDuration(t, began, 0)
		if !block.Taken() {
			t.Error("the block is not taken")
		}
		w.Wait(time.Hour)
		if got := log.String(); got != all.text()+"--- flushed ---\n" {
			t.Errorf("the log is %.300q", got)
		}
	})
}

// While a block is being written, there is no second one.
func TestOneBlockAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		if numbered(1).write(w) == nil || numbered(1).write(w) != nil {
			t.Error("the second block is accepted, or the first one is not")
		}
		log.read()
		synctest.Wait()
		if numbered(1).write(w) == nil {
			t.Error("a block is refused, though nothing is being written")
		}
		log.read()
	})
}

// A block that nobody reads is given up after two seconds, so that its memory is free.
// The log is cut at the end of a line, and goes on when the reader is back.
func TestBlockThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		began := time.Now()
		block := numbered(1000).write(w)
		io.WriteString(w, "--- flushed ---\n")
		if block.Taken() || block.line != nil {
			t.Error("a block that nobody reads is taken, or kept")
		}
		expectDuration(t, began, 2*time.Second)
		pass(time.Hour)
		if numbered(1).write(w) != nil {
			t.Error("a second block is accepted, though nobody reads")
		}
		first := log.read()
		if !strings.HasPrefix(numbered(1000).text(), first) || !strings.HasSuffix(first, "x\n") {
			t.Errorf("%q is written first", first)
		}
		left := 1000 - strings.Count(first, "\n")
		want := fmt.Sprintf("pixel-ping: %d lines left out of the log here\n--- flushed ---\n", left)
		if got := log.read(); got != want {
			t.Errorf("%q is written next, want %q", got, want)
		}
		synctest.Wait()
		block = numbered(1).write(w)
		log.read()
		if !block.Taken() {
			t.Error("no block is taken when the reader is back")
		}
	})
}

// A block behind a text that nobody reads is given up as well, or refused.
func TestBlockBehindATextThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		io.WriteString(w, "a\n") // waits for 100 ms
		began := time.Now()
		if block := numbered(1000).write(w); block.Taken() {
			t.Error("a block that nobody reads is taken")
		}
		expectDuration(t, began, 1900*time.Millisecond)
		if numbered(1).write(w) != nil {
			t.Error("a second block is accepted, though nobody reads")
		}
		io.WriteString(w, "b\n")
		if got := log.read() + log.read(); got != "a\npixel-ping: 1000 lines left out of the log here\nb\n" {
			t.Errorf("%q is written", got)
		}
	})
}

// A full disk takes a part of a line. The line is completed before anything else is
// written, whoever writes, and the log says what is missing.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for room := range 90 {
			log := ""
			w := New(writerFunc(func(p []byte) (int, error) {
				n := min(len(p), room)
				log += string(p[:n])
				if room -= n; n < len(p) {
					return n, syscall.ENOSPC
				}
				return n, nil
			}))
			before := room
			block := lines{"1:\taaaa", "15:\tb", "2:\tc"}.write(w)
			if got, want := block.Taken(), room >= 0 && before >= len("1:\taaaa\n15:\tb\n2:\tc\n"); got != want {
				t.Errorf("room for %d bytes: taken is %v, want %v", before, got, want)
			}
			for range 3 { // while there is no room, and when there is
				io.WriteString(w, "5:\ty\n5:\ty\n")
			}
			room = 1000
			io.WriteString(w, "6:\tz\n")
			written, missing := 0, 0
			for line := range strings.Lines(log) {
				var n int
				if _, err := fmt.Sscanf(line, "pixel-ping: %d line", &n); err == nil && strings.HasSuffix(line, " here\n") {
					missing += n
				} else if strings.Contains("1:\taaaa\n15:\tb\n2:\tc\n5:\ty\n6:\tz\n", line) && strings.Contains(line, ":") {
					written++
				} else {
					t.Errorf("room for %d bytes: there is a line %q", before, line)
				}
			}
			if written+missing != 10 || !strings.HasSuffix("\n"+log, "\n6:\tz\n") {
				t.Errorf("room for %d bytes: %d lines are written and %d missing, want 10: %q", before, written, missing, log)
			}
		}
	})
}

// A pipe that is full and does not block is tried again: lines stay whole, and a reader
// is waited for as if the pipe blocked.
func TestFullPipeThatDoesNotBlock(t *testing.T) {
	for _, bytesPerSecond := range []int{3000, 1000} {
		synctest.Test(t, func(t *testing.T) {
			began, log := time.Now(), ""
			w := New(writerFunc(func(p []byte) (int, error) {
				room := 1000 + int(time.Since(began).Seconds()*float64(bytesPerSecond)) - len(log)
				n := min(len(p), room)
				log += string(p[:n])
				if n < len(p) {
					return n, syscall.EAGAIN
				}
				return n, nil
			}))
			all := numbered(200)
			block := all.write(w)
			io.WriteString(w, "--- flushed ---\n")
			w.Wait(time.Hour)
			if bytesPerSecond == 1000 { // 4,096 bytes take more than two seconds
				if block.Taken() || !strings.HasPrefix(log, all[:30].text()) ||
					!strings.HasSuffix(log, "x\npixel-ping: 163 lines left out of the log here\n--- flushed ---\n") {
					t.Errorf("the log is %q", log)
				}
			} else if !block.Taken() || log != all.text()+"--- flushed ---\n" {
				t.Errorf("the log is %q", log)
			}
		})
	}
}

// At the deadline a block is done, and no line of it is begun after it. The chunk under
// way is written whole, and so are texts.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(reader)
		w := New(log)
		began := time.Now()
		for _, after := range []time.Duration{24 * time.Hour, time.Second, 1500 * time.Millisecond} {
			w.SetDeadline(began.Add(after))
		}
		block := numbered(1000).write(w)
		pass(time.Second - 1)
		expectDone(t, block, false)
		if block.Taken() || numbered(1).write(w) != nil {
			t.Error("a block is taken after the deadline")
		}
		expectDuration(t, began, time.Second)
		io.WriteString(w, "late\n")
		w.Wait(Grace)
		expectDuration(t, began, 1500*time.Millisecond)
		pass(time.Hour)
		first := log.read()
		if !strings.HasSuffix(first, "x\n") {
			t.Errorf("%q is written, want whole lines", first)
		}
		want := fmt.Sprintf("pixel-ping: %d lines left out of the log here\nlate\n", 1000-strings.Count(first, "\n"))
		if got := log.read(); got != want {
			t.Errorf("%q is written next, want %q", got, want)
		}
		synctest.Wait()
		if numbered(1).write(w) != nil {
			t.Error("a block is accepted long after the deadline")
		}
	})
}

// A stop whose log ends after 8.2 seconds takes at most 8.7, however slow the reader is, and its
// last line is written: a block ends while there is time for the line after it.
func TestStopWithASlowReader(t *testing.T) {
	for _, test := range []struct {
		bytesPerSecond int
		taken, last    bool // the block is taken, and the last line is written
	}{{100, false, false}, {1000, false, true}, {2000, false, true}, {4000, false, true}, {8000, false, true},
		{20_000, true, true}} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			w := New(writerFunc(func(p []byte) (int, error) {
				pass(time.Duration(len(p)) * time.Second / time.Duration(test.bytesPerSecond))
				return log.Write(p)
			}))
			began := time.Now()
			w.SetDeadline(began.Add(8200 * time.Millisecond))
			block := numbered(1000).write(w)
			if got := block.Taken(); got != test.taken {
				t.Errorf("%d bytes a second: taken is %v", test.bytesPerSecond, got)
			}
			const last = "3 hits of 2 keys were not delivered\n"
			io.WriteString(w, last)
			w.Wait(w.Left())
			if took := time.Since(began); took > 8700*time.Millisecond {
				t.Errorf("%d bytes a second: a stop takes %v", test.bytesPerSecond, took)
			}
			if got := strings.HasSuffix(log.String(), last); got != test.last {
				t.Errorf("%d bytes a second: the last line is written is %v", test.bytesPerSecond, got)
			}
			pass(time.Hour)
		})
	}
}

// Without a deadline, a last line has half a second.
func TestLastLineWithoutADeadline(t *testing.T) {
	if got := New(io.Discard).Left(); got != 500*time.Millisecond {
		t.Errorf("a last line has %v, want 500ms", got)
	}
}

// Chunks end with a line, and only a line that is longer than a chunk is written in one
// that is longer: the system writes the others whole or not at all.
func TestChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := strings.Repeat("x", 3*4096)
		fail := true
		w := New(writerFunc(func(p []byte) (int, error) {
			if fail {
				return 0, syscall.ENOSPC
			}
			if !bytes.HasSuffix(p, []byte("\n")) || len(p) > 4096 && string(p) != long+"\n" {
				t.Errorf("there is a chunk of %d bytes: %.20q...", len(p), p)
			}
			return len(p), nil
		}))
		io.WriteString(w, "left out\n")
		fail = false
		all := append(append(lines{long}, numbered(200)...), long)
		if !append(all, numbered(200)...).write(w).Taken() {
			t.Error("the block is not taken")
		}
	})
}

// What the null device takes is written nowhere. Go's runtime opens the device in place
// of a stdout that is closed.
func TestNullDevice(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for f, want := range map[*os.File]bool{null: false, file: true} {
		if got := (lines{"a"}).write(New(f)).Taken(); got != want {
			t.Errorf("%s: taken is %v, want %v", f.Name(), got, want)
		}
	}
}

// A log that was closed takes nothing, and holds nobody up.
func TestClosedLog(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	w := New(file)
	file.Close()
	if (lines{"a"}).write(w).Taken() || (lines{"a"}).write(New(file)).Taken() {
		t.Error("a block is taken, though its file is closed")
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	read.Close()
	if numbered(100).write(New(write)).Taken() {
		t.Error("a block is taken, though its reader has gone")
	}
}

// Stdout and stderr have a Writer each, unless they are one file.
func TestOneFileForBoth(t *testing.T) {
	create := func(name string) *os.File {
		file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		return file
	}
	dir := t.TempDir()
	file, again, other := create(dir+"/log"), create(dir+"/log"), create(dir+"/other")
	if out, err := NewPair(file, again); out != err {
		t.Error("one file has two Writers")
	}
	closed := create(dir + "/closed")
	closed.Close()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	read2, write2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read2.Close()
	defer write2.Close()
	for _, pair := range [][2]io.Writer{{file, other}, {file, io.Discard}, {io.Discard, io.Discard}, {write, write2},
		{closed, closed}, {closed, file}} {
		if out, err := NewPair(pair[0], pair[1]); out == err {
			t.Errorf("%v and %v have one Writer", pair[0], pair[1])
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
