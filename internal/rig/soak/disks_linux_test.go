package soak

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
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
	accept  atomic.Bool
	journal string
	keys    int // how many keys were hit
}

// mounted returns a command that mounts a file system of memory at a folder, for a
// program alone, runs a script there, and then the program. The options are those of
// mount.
func mounted(folder, options, script string) []string {
	return []string{
		"unshare", "--mount", "sh", "-ec", `mount -t tmpfs -o "$2" none "$1"; cd "$1"; ` + script + `; exec "$0" "$3"`,
		rig.Binary, folder, options,
	}
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
	r := &diskRig{idempotent: newIdempotent(nil), journal: journal}
	r.calm.Store(true)
	address := rig.Listen(t, func(conn net.Conn) {
		if r.accept.Load() {
			r.serve(conn)
		} else if _, err := rig.ReadRequest(conn); err == nil {
			rig.Answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")(conn)
		}
	})
	r.Daemon = rig.StartProgram(t, map[string]any{"endpoint": "http://" + address, "journal": journal}, command...)
	r.Stdout.WaitLine(t, 0, "Serving")
	return r
}

// hit makes a hit for each of n new keys of 4 kB, and another one for those of before.
func (r *diskRig) hit(t *testing.T, n int) {
	t.Helper()
	r.keys += n
	for i := range r.keys {
		key := fmt.Sprint(i, strings.Repeat("x", 4<<10))
		r.Hit(t, key)
		r.add(r.answered, key, 1)
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
	if got, want := sum(r.saved), sum(r.answered); got != want {
		t.Errorf("%d hits are delivered, want %d", got, want)
	}
	for line := range strings.Lines(r.Stderr.String()) {
		if !strings.HasPrefix(line, "--- ") && !strings.HasPrefix(line, "pixel-ping: ") {
			t.Errorf("the standard error has the line %q", line)
		}
	}
}

// A journal on a disk that becomes full keeps what it has. What there is no room for is
// counted in memory. All of it is delivered.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	type disk struct {
		name, journal, cause string
		command              []string
		atOnce               bool // it is full at the start
	}
	limited := filepath.Join(t.TempDir(), "journal")
	disks := []disk{{
		"a limit on file size", limited, "file too large",
		[]string{"sh", "-ec", `ulimit -f 2048; exec "$0" "$1"`, rig.Binary}, false,
	}}
	if os.Getuid() == 0 {
		folder := t.TempDir()
		journal := filepath.Join(folder, "journal")
		disks = append(disks,
			disk{"3 MB", journal, "no space left on device", mounted(folder, "size=3m", ":"), false},
			disk{"3 MB that something else takes", journal, "no space left on device",
				mounted(folder, "size=3m", "mkdir journal; head -c 3145728 /dev/zero >other"), true},
			disk{"read-only", folder, "read-only file system", mounted(folder, "ro", ":"), true})
	} else {
		t.Log("only root may mount: the file size is limited, and nothing else")
	}
	for _, disk := range disks {
		t.Run(disk.name, func(t *testing.T) {
			r := newDiskRig(t, disk.journal, disk.command...)
			if disk.atOnce {
				config := r.Cmd.Args[len(r.Cmd.Args)-1]
				r.Stderr.WaitLine(t, 0, "pixel-ping: "+config+": journal "+r.journal+": "+disk.cause+
					"; new keys are counted in memory only")
			}
			const keys = 800 // 3.2 MB
			r.hit(t, keys)
			skip := r.flush(t)
			r.expect(t, skip, disk.cause+"; ")
			if n := strings.Count(r.Stderr.String()[skip:], "in memory only"); n > 1 {
				t.Errorf("%d lines of a flush tell of it, want 1:\n%s", n, r.Stderr)
			}
			r.hit(t, 10)
			r.flush(t)
			r.end(t)
		})
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
