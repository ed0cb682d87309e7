//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// A check sees what its user sees: a journal in which it may make no files, and a key
// that it may not read, are refused.
func TestCheckAsTheService(t *testing.T) {
	t.Parallel()
	folder := socketFolder(t)
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	rig.WriteCertificate(t, folder)
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "program"), program, 0o700); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(folder, "config.json")
	for name, mode := range map[string]os.FileMode{"program": 0o755, "cert.pem": 0o644, "key.pem": 0o000} {
		if err := os.Chmod(filepath.Join(folder, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"journal", "readable"} {
		if err := os.Mkdir(filepath.Join(folder, name), 0o555); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(folder, name), 0o555); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	for text, want := range map[string]string{
		`"journal": "journal"`:                       "journal journal: permission denied",
		`"journal": "readable/made"`:                 "journal readable/made: permission denied",
		`"sslcert": "cert.pem", "sslkey": "key.pem"`: "sslkey key.pem: permission denied",
	} {
		if err := os.WriteFile(config, []byte(`{"port": 1, "interval": 1, `+text+`}`), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(config, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := command("--check", "config.json")
		cmd.Path, cmd.Dir = filepath.Join(folder, "program"), folder
		if os.Geteuid() == 0 {
			const nobody = 65534
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		output := rig.NewOutput()
		status := rig.Start(t, cmd, output, output).Wait(t)
		if want := "pixel-ping: config.json: " + want + "\n"; status != 1 || strings.TrimSpace(output.String())+"\n" != want {
			t.Errorf("%s: exit status %d, %q, want 1 and %q", text, status, output, want)
		}
	}
}
