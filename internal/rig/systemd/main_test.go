//go:build linux

// Package systemd installs the Debian package on small machines, each of which has a
// systemd as process 1, and shows what an administrator would see. make systemd runs
// it. It needs root, for namespaces and mounts, and changes nothing outside of them
// but .build.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// What make systemd has made: the root of the machines, the folder of the packages,
// and an application for them. The paths are absolute.
var debian, packages, receiver = os.Getenv("DEBIAN"), os.Getenv("PACKAGES"), os.Getenv("RECEIVER")

// machines is the folder in which each machine has one for what it changes.
var machines = filepath.Join(filepath.Dir(debian), "machines")

// In the second process, inside is the folder of its cgroup, in which it makes one
// for each machine.
var inside = os.Getenv("PIXEL_PING_CGROUP")

// TestMain runs the tests in a second process with mount and network namespaces of
// its own. That process is the world around the machines. Whatever becomes of it, the
// first process removes what it leaves: the namespaces vanish with the processes in
// them.
func TestMain(m *testing.M) {
	rig.NeedTarget("make systemd")
	var status int
	if inside == "" {
		status = runInside()
		rig.PrintSummary("systemd", status,
			"the package is installed, restarted, rebooted, upgraded and purged; no answered hit is lost")
	} else if err := enter(); err != nil {
		fmt.Println("FAIL:", err)
		status = 1
	} else {
		status = m.Run()
	}
	os.Exit(status)
}

// runInside runs this program in its namespaces, and returns the exit status.
func runInside() (status int) {
	if os.Getuid() != 0 || debian == "" || packages == "" || receiver == "" {
		fmt.Println("FAIL: these tests need root, and what make systemd makes for them.")
		return 1
	}
	// In a hybrid hierarchy, the second version of cgroups has a folder of its own.
	group := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(group); err != nil {
		group = "/sys/fs/cgroup"
	}
	group = filepath.Join(group, fmt.Sprint("pixel-ping-rig-", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	defer func() {
		if err := removeGroup(group); err != nil {
			fmt.Println("FAIL:", err)
			status = 1
		}
	}()
	interrupted, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	self := exec.CommandContext(interrupted, "/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), "PIXEL_PING_CGROUP="+group)
	self.Stdout, self.Stderr = os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := self.Run(); err != nil {
		fmt.Println("FAIL:", err)
		return 1
	}
	return 0
}

// removeGroup removes a cgroup and those below it, as soon as the processes in them
// have ended.
func removeGroup(group string) error {
	return waitFor(func() error {
		var folders []string
		err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				folders = append(folders, path)
			}
			return err
		})
		for _, folder := range slices.Backward(folders) {
			err = errors.Join(err, os.Remove(folder))
		}
		return err
	})
}

// waitFor calls f until it succeeds. At the deadline it returns the last error.
func waitFor(f func() error) error {
	for limit := time.Now().Add(rig.Deadline); ; <-time.After(20 * time.Millisecond) {
		if err := f(); err == nil || time.Now().After(limit) {
			return err
		}
	}
}

// enter prepares the namespaces of the second process: nothing of what it mounts can
// be seen outside, the files of the machines are in memory, and clients have enough
// ports for a load.
func enter() error {
	outside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	if err != nil || outside == namespace() {
		return fmt.Errorf("the tests have no mount namespace of their own (%v)", err)
	}
	if err := os.MkdirAll(machines, 0o755); err != nil {
		return err
	}
	for _, command := range []string{
		"mount --make-rprivate /",
		"mount -t tmpfs -o mode=755 tmpfs " + machines,
		"ip link set lo up",
		"sysctl -qw net.ipv4.ip_local_port_range=2000\t65000 net.ipv4.tcp_tw_reuse=1",
	} {
		args := strings.Split(command, " ")
		if text, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", command, err, text)
		}
	}
	return nil
}

// namespace returns the name of the mount namespace of this process.
func namespace() string {
	name, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		panic(err)
	}
	return name
}
