//go:build linux

package systemd

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// machine is a Debian with a systemd of its own. Its files outlive a reboot, but not
// the test. It is connected to the test by a cable.
type machine struct {
	folder  string // what it has changed, and what it runs from
	cable   string // the name of the test's end
	address string // of the machine
	outside string // address of the test's end
	init    *rig.Process
}

// made counts the machines.
var made atomic.Int32

// newMachine returns a machine that is not running.
func newMachine(t *testing.T) *machine {
	t.Helper()
	n := made.Add(1)
	m := &machine{
		folder:  filepath.Join(machines, fmt.Sprint(n)),
		cable:   fmt.Sprint("machine", n),
		address: fmt.Sprintf("198.18.%d.2", n),
		outside: fmt.Sprintf("198.18.%d.1", n),
	}
	const interfaces = "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet static\n\taddress %s/24\n"
	path := filepath.Join(m.folder, "changes/etc/network/interfaces")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, interfaces, m.address), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

// boot starts the machine, and waits until systemd says that it runs.
func (m *machine) boot(t *testing.T) {
	t.Helper()
	group := filepath.Join(inside, m.cable)
	if err := os.Mkdir(group, 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	folder, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	script, err := filepath.Abs("boot")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--cgroup", "bash", script, debian, m.folder, namespace())
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC,
		UseCgroupFD: true,
		CgroupFD:    int(folder.Fd()),
		Pdeathsig:   syscall.SIGKILL,
	}
	output := rig.NewOutput()
	m.init = rig.Start(t, cmd, output, output)
	for _, command := range []string{
		"ip link delete " + m.cable + " 2>/dev/null || true", // the last boot's may still be there
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", m.cable, cmd.Process.Pid),
		fmt.Sprintf("ip address add %s/24 dev %s", m.outside, m.cable),
		fmt.Sprintf("ip link set %s up", m.cable),
	} {
		if text, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, text)
		}
	}
	if _, err := io.WriteString(w, "\n"); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(func() error {
		text, _ := m.command("systemctl", "is-system-running").CombinedOutput()
		if state := strings.TrimSpace(string(text)); state != "running" && state != "degraded" {
			return fmt.Errorf("systemctl is-system-running says: %s", state)
		}
		return nil
	}); err != nil {
		t.Fatalf("the machine does not boot: %v\n%s", err, output)
	}
}

// down runs systemctl reboot or poweroff, and waits until the machine is off.
func (m *machine) down(t *testing.T, how string) {
	t.Helper()
	m.command("systemctl", how).Run() // which may be killed before it says what it has done
	m.init.Wait(t)
	// The kernel ends the process 1 of a namespace with a signal that says what it asked for.
	want := map[string]syscall.Signal{"reboot": syscall.SIGHUP, "poweroff": syscall.SIGINT}[how]
	status := m.init.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != want {
		t.Errorf("after systemctl %s, systemd ends with %v, want the signal %v", how, m.init.Cmd.ProcessState, want)
	}
}

// marker is the file that all machines have, and nothing else. Before a command runs or
// a file is written, it shows that the machine is still there: if its process 1 has
// ended, another process may have its number.
const marker = "/pixel-test-machine"

// command returns a command that runs in the machine as root.
func (m *machine) command(args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{
		"-t", fmt.Sprint(m.init.Cmd.Process.Pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w",
		"env", "-i", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8", "SYSTEMD_PAGER=",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"sh", "-ec", "[ -e " + marker + " ]; exec \"$@\"", "sh"}, args...)...)
}

// run runs a shell's command in the machine and returns what it writes. It must
// succeed.
func (m *machine) run(t *testing.T, command string) string {
	t.Helper()
	text, err := m.command("sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, text)
	}
	return string(text)
}

// fail is run for a command that must fail.
func (m *machine) fail(t *testing.T, command string) string {
	t.Helper()
	text, err := m.command("sh", "-ec", command).CombinedOutput()
	if err == nil {
		t.Fatalf("%s succeeds, and should fail:\n%s", command, text)
	}
	return string(text)
}

// path returns the path, in this process, of a file of the running machine.
func (m *machine) path(name string) string {
	return fmt.Sprintf("/proc/%d/root%s", m.init.Cmd.Process.Pid, name)
}

// install installs a package in the running machine and returns what dpkg says.
func (m *machine) install(t *testing.T, deb string) string {
	t.Helper()
	text, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/root/pixel-ping.deb", string(text))
	return m.run(t, "dpkg -i /root/pixel-ping.deb")
}

// offline runs a shell's command in the machine while it is off, and returns what it
// writes. It must succeed. A package is copied to the place where install has it.
func (m *machine) offline(t *testing.T, command string, deb ...string) string {
	t.Helper()
	const enter = `set -euo pipefail
cd "$0"
mkdir -p changes work root
mount -t overlay -o "lowerdir=$1,upperdir=changes,workdir=work" overlay root
[ -e root/pixel-test-machine ]
mount -t proc proc root/proc
command=$2
shift 2
for deb; do cp "$deb" root/root/pixel-ping.deb; done
exec chroot root sh -ec "$command"`
	cmd := exec.Command("unshare", append([]string{"--mount", "--pid", "--fork", "bash", "-c", enter,
		m.folder, debian, command}, deb...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, text)
	}
	return string(text)
}

// write writes a file of the machine. A file that is there keeps its owner and mode.
func (m *machine) write(t *testing.T, name, text string) {
	t.Helper()
	if _, err := os.Stat(m.path(marker)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read returns the text of a file of the machine.
func (m *machine) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(m.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
