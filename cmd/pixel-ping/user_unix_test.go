//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// serviceFolder returns a folder that every user may enter, with a copy of the test
// binary.
func serviceFolder(t *testing.T) string {
	t.Helper()
	folder := socketFolder(t)
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	writeFor(t, filepath.Join(folder, "program"), string(program), 0o755)
	return folder
}

// writeFor writes a file with a mode, whatever the umask.
func writeFor(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	// A child that another test starts meanwhile would have the file open, too, and no program
	// runs that is open for writing.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, []byte(text), 0o600)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// serviceID is the number of the service's user: nobody.
const serviceID = 65534

// asTheService returns a command that runs the daemon in a folder of serviceFolder as a
// user who is not root.
func asTheService(folder string, args ...string) *exec.Cmd {
	cmd := command(args...)
	cmd.Path, cmd.Dir = filepath.Join(folder, "program"), folder
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: serviceID, Gid: serviceID}}
	}
	return cmd
}

// serviceUser returns the name of the user of asTheService.
func serviceUser(t *testing.T) string {
	t.Helper()
	self, err := user.Current()
	if os.Geteuid() == 0 {
		self, err = user.LookupId(fmt.Sprint(serviceID))
	}
	if err != nil {
		t.Fatal(err)
	}
	return self.Username
}

// A check sees what its user sees: a journal in which it may make no files, and a key or
// a configuration that it may not read, are refused.
func TestCheckAsTheService(t *testing.T) {
	t.Parallel()
	folder := serviceFolder(t)
	rig.WriteCertificate(t, folder)
	for name, mode := range map[string]os.FileMode{"cert.pem": 0o644, "key.pem": 0} {
		if err := os.Chmod(filepath.Join(folder, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	journal := filepath.Join(folder, "journal")
	if err := os.Mkdir(journal, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(journal, 0o555); err != nil {
		t.Fatal(err)
	}
	denied := "permission denied for the user " + serviceUser(t)
	configs := map[string]string{"unreadable.json": denied}
	writeFor(t, filepath.Join(folder, "unreadable.json"), `{"port": 1, "interval": 1}`, 0)
	for text, want := range map[string]string{
		`"journal": "journal"`:                       "journal journal: permission denied",
		`"journal": "journal/made/"`:                 "journal journal/made/: permission denied",
		`"sslcert": "cert.pem", "sslkey": "key.pem"`: "sslkey key.pem: " + denied,
	} {
		config := fmt.Sprint(len(configs), ".json")
		writeFor(t, filepath.Join(folder, config), `{"port": 1, "interval": 1, `+text+`}`, 0o644)
		configs[config] = want
	}
	for config, want := range configs {
		output := rig.NewOutput()
		status := rig.Start(t, asTheService(folder, "--check", config), output, output).Wait(t)
		if want := "pixel-ping: " + config + ": " + want + "\n"; status != 1 || output.String() != want {
			t.Errorf("exit status %d, %q, want 1 and %q", status, output, want)
		}
	}
}

// What to do about a port below 1024 is said for port and for metrics.
func TestPrivilegedPorts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil || strings.TrimSpace(string(text)) == "0" {
		t.Skip("every user may listen on every port here")
	}
	folder := serviceFolder(t)
	const want = "permission denied; ports below 1024 need a privilege: "
	for text, setting := range map[string]string{
		`"port": 1`:                           "host, port: cannot listen on 127.0.0.1:1: ",
		`"port": 0, "metrics": "127.0.0.1:1"`: "metrics: cannot listen on 127.0.0.1:1: ",
	} {
		writeFor(t, filepath.Join(folder, "config.json"), `{"host": "127.0.0.1", "interval": 1, `+text+`}`, 0o644)
		output := rig.NewOutput()
		status := rig.Start(t, asTheService(folder, "config.json"), output, output).Wait(t)
		if want := "pixel-ping: config.json: " + setting + want; status != 1 || !strings.HasPrefix(output.String(), want) {
			t.Errorf("%s: exit status %d, %q, want 1 and %q", text, status, output, want)
		}
	}
}
