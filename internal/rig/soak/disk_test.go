//go:build linux

package soak

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// A disk is a file system that is mounted for some programs alone.
type disk struct {
	folder string // where these programs see it
	holder *rig.Process
	full   bool
}

// mountScript mounts a file system in a namespace of its own, and holds it until the standard
// input ends.
const mountScript = `set -euo pipefail
[ "$(readlink /proc/self/ns/mnt)" != "$(readlink "/proc/$PPID/ns/mnt")" ]
mount "${@:2}" "$1"
mountpoint -q "$1"
echo mounted
exec cat`

// mount mounts a file system with the options of mount until the test ends. It skips the test
// if this process may not.
func mount(t *testing.T, options ...string) *disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root may mount a file system: not shown")
	}
	d := &disk{folder: t.TempDir()}
	cmd := exec.Command("unshare", append([]string{"--mount", "bash", "-c", mountScript, "mount", d.folder}, options...)...)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output := rig.NewOutput()
	d.holder = rig.Start(t, cmd, output, output)
	output.WaitLine(t, 0, "mounted")
	return d
}

// mountImage mounts a new file system of a kind, in a file of some megabytes. It skips the test, and says so, if the
// kernel does not know the kind.
func mountImage(t *testing.T, kind string, megabytes int64, options string) *disk {
	t.Helper()
	image := filepath.Join(t.TempDir(), kind)
	err := os.WriteFile(image, nil, 0o600)
	if err == nil {
		err = os.Truncate(image, megabytes<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if output, err := exec.Command("mkfs."+kind, "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", kind, err, output)
	}
	exec.Command("modprobe", kind).Run()
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if devices, _ := filepath.Glob("/dev/loop-control"); !strings.Contains(string(known), "\t"+kind+"\n") || devices == nil {
		t.Skipf("this kernel mounts no %s from a file: not shown", kind)
	}
	return mount(t, "-t", kind, "-o", "loop,"+options, image)
}

// command returns the command that runs another one where the disk is mounted.
func (d *disk) command(command ...string) []string {
	namespace := "--mount=/proc/" + strconv.Itoa(d.holder.Cmd.Process.Pid) + "/ns/mnt"
	return append([]string{"nsenter", namespace, "--"}, command...)
}

// run runs a command where the disk is mounted, in its root.
func (d *disk) run(t *testing.T, command ...string) {
	t.Helper()
	command = d.command(append([]string{"env", "-C", d.folder}, command...)...)
	if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", command, err, output)
	}
}

// path returns where this process sees a file of the disk.
func (d *disk) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(d.holder.Cmd.Process.Pid), "root", d.folder, name)
}

// fill fills the disk with a file.
func (d *disk) fill(t *testing.T) {
	t.Helper()
	d.full = true
	file, err := os.Create(d.path("other"))
	if errors.Is(err, syscall.ENOSPC) {
		return
	} else if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	for offset, size := int64(0), int64(1<<30); size >= 4<<10; {
		if err = syscall.Fallocate(int(file.Fd()), 0, offset, size); err == nil {
			offset += size
		} else if size /= 2; !errors.Is(err, syscall.ENOSPC) {
			t.Error(err)
			return
		}
	}
}

// empty removes the file.
func (d *disk) empty(t *testing.T) {
	t.Helper()
	if err := os.Remove(d.path("other")); err != nil && !os.IsNotExist(err) {
		t.Error(err)
	}
	d.full = false
}

// change fills and empties the disk at random times of a life.
func (d *disk) change(t *testing.T, a *idempotent, l *life, random *rand.Rand, ended <-chan struct{}) {
	for {
		select {
		case <-ended:
			return
		case <-time.After(time.Duration(random.IntN(1500)) * time.Millisecond):
		}
		if d.full {
			d.empty(t)
			continue
		}
		a.mu.Lock()
		l.full = true
		a.mu.Unlock()
		d.fill(t)
	}
}
