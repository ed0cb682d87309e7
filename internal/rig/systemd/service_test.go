//go:build linux

package systemd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

const (
	configPath = "/etc/pixel-ping/config.json"
	recipes    = "/usr/share/doc/pixel-ping/recipes"
)

// deb returns the path of the package of this version for this machine.
func deb(t *testing.T) string {
	t.Helper()
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(packages, "pixel-ping_*_"+strings.TrimSpace(string(arch))+".deb"))
	if err != nil || len(names) != 1 {
		t.Fatalf("there are the packages %q for %s, want one (error %v)", names, arch, err)
	}
	return names[0]
}

// newService returns a machine on which the package is installed and not started.
func newService(t *testing.T) *machine {
	t.Helper()
	m := newMachine(t)
	m.boot(t)
	m.install(t, deb(t))
	return m
}

// application is an application outside of the machines.
type application struct {
	*rig.Endpoint
	port string
}

func newApplication(t *testing.T) application {
	t.Helper()
	a := application{Endpoint: &rig.Endpoint{Address: "0.0.0.0:0", Requests: make(chan string, 10000)}}
	a.accept()
	a.Open(t)
	t.Cleanup(a.Close)
	_, a.port, _ = net.SplitHostPort(a.Address)
	return a
}

// accept makes the application save what it receives, and refuse makes it answer with
// an error.
func (a application) accept() { a.SetAnswer(rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")) }
func (a application) refuse() {
	a.SetAnswer(rig.Answer("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"))
}

// url returns the URL of the application for a machine.
func (a application) url(m *machine) string {
	return "http://" + m.outside + ":" + a.port + "/save_hits"
}

// received returns the sums of the counts that have arrived since the last received.
func (a application) received(t *testing.T) map[string]int64 {
	t.Helper()
	sums := make(map[string]int64)
	for len(a.Requests) > 0 {
		for key, n := range rig.Counts[int64](t, a.Body(t)) {
			sums[key] += n
		}
	}
	return sums
}

// configure writes the settings to the configuration. Settings that are not given are
// the port 9187 and an interval of an hour.
func (m *machine) configure(t *testing.T, settings map[string]any) {
	t.Helper()
	all := map[string]any{"port": "9187", "interval": 3600}
	for name, value := range settings {
		all[name] = value
	}
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, configPath, string(text))
}

// follow runs the commands of the first session under a heading of a recipe's README,
// as the package has it.
func (m *machine) follow(t *testing.T, recipe, heading string) {
	t.Helper()
	_, text, _ := strings.Cut(m.read(t, recipes+"/"+recipe+"/README.md"), "\n## "+heading+"\n")
	_, text, _ = strings.Cut(text, "\n```console\n")
	text, _, found := strings.Cut(text, "\n```\n")
	if !found {
		t.Fatalf("the recipe %s has no session under %q", recipe, heading)
	}
	var commands strings.Builder
	for line := range strings.Lines(text) {
		if command, found := strings.CutPrefix(line, "# "); found { // and not what a command writes
			commands.WriteString(command)
		}
	}
	m.run(t, commands.String())
}

// addition installs a drop-in of the unit. reload has to follow.
func (m *machine) addition(t *testing.T, name, text string) {
	t.Helper()
	m.write(t, "/etc/systemd/system/pixel-ping.service.d/"+name, text)
}

// hit makes a hit for each key from outside.
func (m *machine) hit(t *testing.T, keys ...string) {
	t.Helper()
	(&rig.Daemon{Address: m.address + ":9187"}).Hit(t, keys...)
}

// property returns a property of the service.
func (m *machine) property(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, "systemctl show --value -p "+name+" pixel-ping"))
}

// journal returns the lines of the service in this boot.
func (m *machine) journal(t *testing.T) string {
	t.Helper()
	return m.run(t, "journalctl --sync; journalctl -b -u pixel-ping -o cat")
}

// said waits until the service has written a line that matches.
func (m *machine) said(t *testing.T, line string) {
	t.Helper()
	if err := waitFor(func() error {
		if text := m.journal(t); !regexp.MustCompile("(?m)" + line).MatchString(text) {
			return fmt.Errorf("no line matches %q; the journal ends with:\n%s", line, text[max(0, len(text)-3000):])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// checkState checks how the service is: active, inactive or failed. In a restart loop
// it would be activating most of the time.
func (m *machine) checkState(t *testing.T, want string) {
	t.Helper()
	if got := m.property(t, "ActiveState"); got != want {
		t.Errorf("the service is %s, want %s:\n%s", got, want, m.status())
	}
}

// checkRefused checks that the service has failed for good, and that systemctl status
// says why.
func (m *machine) checkRefused(t *testing.T, reason string) {
	t.Helper()
	m.checkState(t, "failed")
	if got := m.property(t, "ExecMainStatus"); got != "78" {
		t.Errorf("the exit status is %s, want 78", got)
	}
	if got := m.property(t, "NRestarts"); got != "0" {
		t.Errorf("systemd has restarted it %s times", got)
	}
	if text := m.status(); !regexp.MustCompile(reason).MatchString(text) {
		t.Errorf("systemctl status does not say %q:\n%s", reason, text)
	}
	if text := m.run(t, "systemctl --failed"); !strings.Contains(text, "pixel-ping.service") {
		t.Errorf("systemctl --failed does not name it:\n%s", text)
	}
}

// status returns what systemctl status says, whose exit status is not 0 unless the
// service runs. All lines have arrived in the journal before.
func (m *machine) status() string {
	const show = "journalctl --sync; systemctl status --full --no-pager pixel-ping"
	text, _ := m.command("sh", "-c", show).CombinedOutput()
	return string(text)
}

// load makes hits without a pause, over a connection for each.
type load struct {
	answered, failed atomic.Int64
	err              atomic.Pointer[error] // the first
	cancel           context.CancelFunc
	clients          sync.WaitGroup
}

// startLoad starts a load from several clients.
func startLoad(t *testing.T, network, address string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel}
	for range 6 {
		l.clients.Go(func() {
			for ctx.Err() == nil {
				if err := hitOnce(network, address); err != nil {
					l.failed.Add(1)
					l.err.CompareAndSwap(nil, &err)
				} else {
					l.answered.Add(1)
				}
				<-time.After(time.Millisecond)
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// more waits until n more hits are answered.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	want := l.answered.Load() + n
	if err := waitFor(func() error {
		if got := l.answered.Load(); got < want {
			return fmt.Errorf("%d hits are answered, want %d", got, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// stop ends the load when all its hits are answered or have failed.
func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
}

// check checks that the application has each answered hit once. Of the hits that
// failed, it may have some.
func (l *load) check(t *testing.T, a application) {
	t.Helper()
	answered, failed := l.answered.Load(), l.failed.Load()
	var delivered int64
	for _, n := range a.received(t) {
		delivered += n
	}
	if delivered < answered || delivered > answered+failed {
		t.Errorf("%d hits are delivered, and %d were answered and %d failed", delivered, answered, failed)
	}
	t.Logf("%d hits answered, %d delivered, %d failed", answered, delivered, failed)
}

// checkNoneRefused checks that no hit has failed.
func (l *load) checkNoneRefused(t *testing.T) {
	t.Helper()
	if n := l.failed.Load(); n > 0 {
		t.Errorf("%d hits failed: %v", n, *l.err.Load())
	}
}

// hitOnce makes a hit over a connection of its own.
func hitOnce(network, address string) error {
	conn, err := net.DialTimeout(network, address, rig.Deadline)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	const request = "GET /pixel.gif?key=page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	answer, err := rig.ReadAnswer(bufio.NewReader(conn))
	if err != nil {
		return err
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

// fileMode returns the owner, the group and the mode of a file, such as "root:root 600".
func (m *machine) fileMode(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, "stat -c '%U:%G %a' "+name))
}

// exists reports whether the machine has a file.
func (m *machine) exists(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

// waitActive waits until the service is active.
func (m *machine) waitActive(t *testing.T) {
	t.Helper()
	if err := waitFor(func() error {
		if state := m.property(t, "ActiveState") + " " + m.property(t, "SubState"); state != "active running" {
			return fmt.Errorf("the service is %s:\n%s", state, m.status())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// hang returns an answer that never comes.
func hang() func(net.Conn) {
	return func(conn net.Conn) { io.Copy(io.Discard, conn) }
}
