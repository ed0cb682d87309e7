//go:build linux

package soak

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// diskRig is a daemon with a journal on a disk that fails, and its application, which
// refuses each flush until it is to accept.
type diskRig struct {
	*rig.Daemon
	*idempotent
	hits    *life
	address string // of the application
	accept  atomic.Bool
	journal string
	keys    int // how many keys were hit
}

// unprivileged returns a command that runs a program for which the permissions of files
// count, even if this process is root's.
func unprivileged() []string {
	if os.Getuid() != 0 {
		return []string{rig.Binary}
	}
	return []string{"setpriv", "--bounding-set", "-dac_override,-dac_read_search", rig.Binary}
}

// newDiskRig starts a daemon, by a command, with a journal at a path.
func newDiskRig(t *testing.T, journal string, command ...string) *diskRig {
	t.Helper()
	r := &diskRig{idempotent: newIdempotent(temper{}, nil, true), journal: journal}
	r.hits = r.newLife(false)
	address := rig.Listen(t, func(conn net.Conn) {
		if r.accept.Load() {
			r.serve(conn)
		} else if _, err := rig.ReadRequest(conn); err == nil {
			rig.Answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")(conn)
		}
	})
	r.address = address
	r.start(t, command...)
	return r
}

// start starts a daemon by a command.
func (r *diskRig) start(t *testing.T, command ...string) {
	t.Helper()
	r.Daemon = rig.StartProgram(t, map[string]any{"endpoint": "http://" + r.address, "journal": r.journal}, command...)
	r.Stdout.WaitLine(t, 0, "Serving")
}

// hit makes a hit for each of n new keys of 4 kB, and another one for those of before.
func (r *diskRig) hit(t *testing.T, n int) {
	t.Helper()
	r.keys += n
	for i := range r.keys {
		key := fmt.Sprint(i, strings.Repeat("x", 4<<10))
		r.Hit(t, key)
		r.add(r.hits.answered, key)
	}
}

// expect waits for a line that tells of the journal's failure, and begins with text.
func (r *diskRig) expect(t *testing.T, skip int, text string) {
	t.Helper()
	r.Stderr.WaitLine(t, skip, "pixel-ping: journal "+r.journal+": "+text)
}

// flush forces a flush that the application refuses. It returns how long stderr was
// before.
func (r *diskRig) flush(t *testing.T) (skip int) {
	t.Helper()
	skip = len(r.Stderr.String())
	r.Signal(t, syscall.SIGUSR2)
	r.Stderr.WaitLine(t, skip, "--- flush failed with code:503")
	return skip
}

// end lets the application accept, stops the daemon, and fails the test unless each hit
// was delivered once.
func (r *diskRig) end(t *testing.T) {
	t.Helper()
	r.accept.Store(true)
	r.Flush(t)
	r.Stop(t)
	r.check(t)
	if got, want := sum(r.saved), sum(r.hits.answered); got != want {
		t.Errorf("%d hits are delivered, want %d", got, want)
	}
	for line := range strings.Lines(r.Stderr.String()) {
		if !strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "pixel-ping: ") {
			t.Errorf("the standard error has the line %q", line)
		}
	}
}

// A journal on a disk that becomes full, or fails in another way, keeps what it has. What it has no room for is counted in
// memory, and the log says so. All of it is delivered, but for what a file had that somebody has cut.
func TestDisksThatFail(t *testing.T) {
	t.Parallel()
	const fault = "the disk can not provide a page of a file"
	tmpfs := func(t *testing.T) *disk { return mount(t, "-t", "tmpfs", "-o", "size=3m", "none") }
	btrfs := func(t *testing.T) *disk { return mountImage(t, "btrfs", 160, "noatime") }
	for _, test := range []struct {
		name   string
		mount  func(t *testing.T) *disk
		fail   func(t *testing.T, d *disk)
		causes string // one of these is in the log
		lost   bool   // what was counted before may be lost
	}{
		{"tmpfs that is full", tmpfs, nil, "no space left on device", false},
		{"tmpfs that something else fills", tmpfs, func(t *testing.T, d *disk) { d.fill(t) }, "no space left on device", false},
		{"xfs that is full, and on which the files were copied",
			func(t *testing.T) *disk { return mountImage(t, "xfs", 320, "noatime") },
			func(t *testing.T, d *disk) {
				d.run(t, "cp", "-r", "--reflink=always", "journal", "copy")
				d.fill(t)
			}, fault, false},
		{"btrfs that is full", btrfs, func(t *testing.T, d *disk) { d.fill(t) }, "no space left on device", false},
		{"btrfs that is full, and has a snapshot", btrfs, func(t *testing.T, d *disk) {
			d.run(t, "btrfs", "subvolume", "snapshot", ".", "snapshot")
			d.fill(t)
		}, fault, false},
		{"ext4 that becomes read-only", func(t *testing.T) *disk { return mountImage(t, "ext4", 64, "errors=remount-ro") },
			func(t *testing.T, d *disk) {
				d.run(t, "sh", "-ec", "echo 1 >/sys/fs/ext4/$(basename $(findmnt -no SOURCE .))/trigger_fs_error")
			}, "read-only file system|" + fault, false},
		{"a file that somebody cuts", tmpfs, func(t *testing.T, d *disk) {
			d.run(t, "sh", "-ec", "truncate -s 0 journal/*")
		}, fault, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := test.mount(t)
			r := newDiskRig(t, filepath.Join(d.folder, "journal"), d.command(rig.Binary)...)
			r.hit(t, 100)
			if test.fail != nil {
				d.run(t, "sync", "-f", ".")
				test.fail(t, d)
			}
			if test.lost {
				r.hits.answered, r.hits.maybe = r.hits.maybe, r.hits.answered
			}
			skip := len(r.Stderr.String())
			r.hit(t, 700) // 2.8 MB
			r.flush(t)
			causes := regexp.MustCompile(`(?m)^pixel-ping: journal ` + r.journal + `: (` + test.causes + `); .*in memory only`)
			for limit := time.Now().Add(rig.Deadline); !causes.MatchString(r.Stderr.String()[skip:]); {
				if <-time.After(time.Millisecond); time.Now().After(limit) {
					t.Fatalf("no line has %q:\n%s", causes, r.Stderr)
				}
			}
			if told := r.Stderr.String()[skip:]; len(causes.FindAllString(told, -1)) > 1 {
				t.Errorf("more than one line of a flush has %q:\n%s", causes, told)
			}
			r.hit(t, 10)
			r.flush(t)
			r.end(t)
		})
	}
}

// A start on a disk that is read-only delivers what the journal has, and counts in memory.
func TestReadOnlyAtTheStart(t *testing.T) {
	t.Parallel()
	d := mount(t, "-t", "tmpfs", "none")
	journal := filepath.Join(d.folder, "journal")
	r := newDiskRig(t, journal, d.command(rig.Binary)...)
	r.hit(t, 20)
	r.Cmd.Process.Kill()
	r.Wait(t)
	d.run(t, "mount", "-o", "remount,ro", ".")
	for range 2 { // What was delivered cannot be deleted. The second time, the application knows the id.
		r.start(t, d.command(rig.Binary)...)
		config := r.Cmd.Args[len(r.Cmd.Args)-1]
		r.Stderr.WaitLine(t, 0, "pixel-ping: "+config+": journal "+journal+
			": read-only file system; new keys are counted in memory only")
		r.Stderr.WaitLine(t, 0, "pixel-ping: 20 hits of 20 keys recovered from the journal")
		r.hit(t, 5)
		r.end(t)
	}
}

// If the directory of the journal goes away, or if it may not be written to any more, all
// hits are delivered, and the log says what is wrong.
func TestJournalThatGoesAway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, cause string
		command     []string
		fail        func(journal string) error
	}{
		{"deleted", "no such file or directory", []string{rig.Binary}, removeAll},
		{"renamed", "", []string{rig.Binary}, func(journal string) error { return os.Rename(journal, journal+".old") }},
		{"not writable", "permission denied", unprivileged(),
			func(journal string) error { return os.Chmod(journal, 0o500) }},
		{"not accessible", "permission denied", unprivileged(), func(journal string) error { return os.Chmod(journal, 0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newDiskRig(t, filepath.Join(t.TempDir(), "journal"), test.command...)
			r.hit(t, 10)
			if err := test.fail(r.journal); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(r.journal, 0o700) }) // so that it can be deleted
			skip := len(r.Stderr.String())
			for range 3 {
				r.hit(t, 300)
				r.flush(t)
			}
			if test.cause != "" {
				r.expect(t, skip, test.cause+"; ")
			} else if got := r.Stderr.String(); strings.Contains(got, "journal") {
				t.Errorf("the standard error is:\n%s", got)
			}
			r.end(t)
		})
	}
}

// removeAll deletes a directory in which a daemon may make files meanwhile.
func removeAll(path string) error {
	for limit := time.Now().Add(rig.Deadline); ; {
		if err := os.RemoveAll(path); err == nil || time.Now().After(limit) {
			return err
		}
	}
}

// A daemon whose journal was deleted does not say at a stop that the journal has what was
// not delivered.
func TestStopWithADeletedJournal(t *testing.T) {
	t.Parallel()
	r := newDiskRig(t, filepath.Join(t.TempDir(), "journal"), rig.Binary)
	r.hit(t, 10)
	if err := removeAll(r.journal); err != nil {
		t.Fatal(err)
	}
	r.hit(t, 10)
	r.Signal(t, syscall.SIGTERM)
	status := r.Wait(t)
	const want = "pixel-ping: 30 hits of 20 keys were not delivered (30 hits may have been saved); the log has them\n"
	if got := r.Stderr.String(); status != 1 || !strings.HasSuffix(got, want) {
		t.Errorf("exit status %d, want 1, and a standard error that ends with %q:\n%s", status, want, got)
	}
}

// A directory in which no file can be made is refused at the start.
func TestJournalThatCanNotBeWritten(t *testing.T) {
	t.Parallel()
	type directory struct {
		name, cause string
		mode        os.FileMode
		command     []string
	}
	directories := []directory{
		{"may not be written", "permission denied", 0o500, unprivileged()},
		{"may not be read", "permission denied", 0o300, unprivileged()},
	}
	for _, test := range directories {
		journal := t.TempDir()
		if err := os.Chmod(journal, test.mode); err != nil {
			t.Fatal(err)
		}
		d := rig.StartProgram(t, map[string]any{"journal": journal}, test.command...)
		status := d.Wait(t)
		want := fmt.Sprintf("pixel-ping: %s: journal %s: %s\n", d.Cmd.Args[len(d.Cmd.Args)-1], journal, test.cause)
		if got := d.Stderr.String(); got != want || status != 1 {
			t.Errorf("a directory that %s: exit status %d with %q, want 1 with %q", test.name, status, got, want)
		}
		os.Chmod(journal, 0o700)
	}
}
