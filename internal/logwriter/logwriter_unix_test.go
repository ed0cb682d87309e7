//go:build unix

package logwriter

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pipe returns a pipe and two files for its writing end, as with 2>&1. Go's runtime takes
// them for files that block, also if another program that has the pipe changes that later.
func pipe(t *testing.T) (read, stdout, stderr *os.File) {
	t.Helper()
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		t.Fatal(err)
	}
	syscall.SetNonblock(ends[0], true) // for the deadline
	second, err := syscall.Dup(ends[1])
	if err != nil {
		t.Fatal(err)
	}
	read, stdout, stderr = os.NewFile(uintptr(ends[0]), "log"), os.NewFile(uintptr(ends[1]), "stdout"),
		os.NewFile(uintptr(second), "stderr")
	t.Cleanup(func() { read.Close(); stdout.Close(); stderr.Close() })
	if err := read.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return read, stdout, stderr
}

// With stdout and stderr in one pipe, lines are whole and in order, whether the pipe
// blocks or takes only parts of a write.
func TestOnePipeForBoth(t *testing.T) {
	for _, nonBlocking := range []bool{false, true} {
		read, stdout, stderr := pipe(t)
		if err := syscall.SetNonblock(int(stdout.Fd()), nonBlocking); err != nil {
			t.Fatal(err)
		}
		out, log := NewPair(stdout, stderr)
		const long = 7000 // bytes of a line: a pipe takes parts of it
		var writers sync.WaitGroup
		block := out.Block(200, func(dst []byte, i int) []byte {
			return fmt.Appendf(dst, "out %d %s\n", i, strings.Repeat("x", long))
		})
		writers.Go(func() {
			for i := range 100 {
				fmt.Fprintf(log, "err %d %s\n", i, strings.Repeat("x", long))
			}
		})
		lines, n := bufio.NewReader(read), map[string]int{}
		for range 300 {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			stream := line[:3]
			if want := fmt.Sprintf("%s %d %s\n", stream, n[stream], strings.Repeat("x", long)); line != want {
				t.Fatalf("nonBlocking is %v: there is a line of %d bytes: %.20q, want %.20q", nonBlocking, len(line), line, want)
			}
			n[stream]++
			if stream == "err" && n["out"] < 200 {
				t.Fatalf("nonBlocking is %v: line %d of stderr is written before line %d of stdout", nonBlocking, n[stream], n["out"])
			}
		}
		writers.Wait()
		if !block.Taken() {
			t.Errorf("nonBlocking is %v: the block is not taken", nonBlocking)
		}
	}
}

// Stdout and stderr may be one pipe, socket or device.
func TestOneDeviceForBoth(t *testing.T) {
	_, stdout, stderr := pipe(t)
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	again, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	sockets, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	journal, peer := os.NewFile(uintptr(sockets[0]), "journal"), os.NewFile(uintptr(sockets[1]), "peer")
	defer journal.Close()
	defer peer.Close()
	for _, test := range []struct {
		stdout, stderr io.Writer
		one            bool
	}{{stdout, stderr, true}, {null, again, true}, {journal, journal, true}, {journal, peer, false}, {null, stdout, false}} {
		if out, err := NewPair(test.stdout, test.stderr); (out == err) != test.one {
			t.Errorf("%v and %v: one Writer is %v, want %v", test.stdout, test.stderr, out == err, test.one)
		}
	}
}

// described is a file with another description.
type described struct {
	os.FileInfo
	mode os.FileMode
	stat syscall.Stat_t
}

func (d *described) Mode() os.FileMode { return d.mode }
func (d *described) Sys() any          { return &d.stat }

// The null device is known by its number, whatever its file is: in a unit with
// PrivateDevices= it is another file than the one that systemd has opened.
func TestNullDeviceOfAnotherFile(t *testing.T) {
	info, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	device := *info.Sys().(*syscall.Stat_t)
	device.Ino++
	device.Dev++
	other := device
	other.Rdev++
	for _, test := range []struct {
		file *described
		want bool
	}{
		{&described{info, info.Mode(), device}, true},
		{&described{info, info.Mode(), other}, false}, // another device
		{&described{info, 0o600, device}, false},      // no device: its Rdev means nothing
	} {
		if got := isNull(nil, test.file); got != test.want {
			t.Errorf("%v with number %d: null is %v, want %v", test.file.mode, test.file.stat.Rdev, got, test.want)
		}
	}
}
