//go:build linux

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// git refuses to read the repository of another user: root builds and installs in it all
// the same, and the program does not name its commit.
func TestInstallInAnotherUsersClone(t *testing.T) {
	clone := made
	clone.folder = filepath.Join(t.TempDir(), "clone")
	run(t, "cp", "-R", made.folder, clone.folder)
	run(t, "chown", "-R", "12345:12345", clone.folder)
	// What could tell git to read it.
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("SUDO_UID", "")
	git := exec.Command("git", "rev-parse", "HEAD")
	git.Dir = clone.folder
	if _, err := output(git); err == nil {
		t.Fatal("git reads the repository of another user")
	}
	t.Setenv("PREFIX", clone.folder)
	if err := clone.make("022", "UTC", "clean", "install"); err != nil {
		t.Fatal(err)
	}
	want := "Pixel Ping version " + made.version + "\n"
	if got := run(t, filepath.Join(clone.folder, "bin/pixel-ping"), "--version"); got != want {
		t.Errorf("--version prints %q, want %q", got, want)
	}
}

// npm removes the program that has taken the place of its link. Another installation
// brings it back.
func TestNpmComesLast(t *testing.T) {
	prefix, original := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"package.json": `{"name": "pixel-ping", "version": "0.1.6", "bin": {"pixel-ping": "original"}}`,
		"original":     "#!/bin/sh\n",
	} {
		if err := os.WriteFile(filepath.Join(original, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	npm := func(args ...string) {
		t.Helper()
		cmd := exec.Command("npm", append(args, "--offline", "--global", "--prefix", prefix)...)
		cmd.Dir = original
		if _, err := output(cmd); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(prefix, "bin/pixel-ping")
	install := func() {
		t.Helper()
		t.Setenv("PREFIX", prefix)
		if err := made.make("022", "UTC", "install"); err != nil {
			t.Fatal(err)
		}
		if got := run(t, program, "--version"); !strings.HasPrefix(got, "Pixel Ping version "+made.version) {
			t.Errorf("after the installation, --version prints %q", got)
		}
	}
	npm("pack")
	npm("install", "./pixel-ping-0.1.6.tgz")
	if target, err := os.Readlink(program); !strings.HasSuffix(target, "/original") {
		t.Fatalf("npm has made a link to %q (error %v)", target, err)
	}
	install()
	npm("uninstall", "pixel-ping")
	if _, err := os.Lstat(program); err == nil {
		t.Error("npm leaves the program: the README warns for nothing")
	}
	install()
}
