//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInstall runs make install in a folder that has the Makefile, a few sources,
// and a go command that only writes down that it was to build.
func TestInstall(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	folder, tools := t.TempDir(), t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		syscall.ForkLock.RLock() // see writeFor
		err := os.WriteFile(path, []byte(text), 0o700)
		syscall.ForkLock.RUnlock()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("Makefile", string(makefile))
	write("go.mod", "")
	source := write("cmd/pixel-ping/main.go", "")
	removed := write("internal/hits/hits.go", "")
	unitTest := write("internal/hits/hits_test.go", "")
	goCommand := write("bin/go", "#!/bin/sh\ncase $1 in build) echo built >>builds; cp builds pixel-ping;; esac\n")

	// The PATH has no other go command.
	for _, name := range []string{"make", "sh", "find", "install", "cp", "id"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(tools, name)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(path string) (output string, err error) {
		cmd := exec.Command(filepath.Join(tools, "make"), "install", "PREFIX=installed")
		cmd.Dir = folder
		cmd.Env = []string{"PATH=" + path} // without the settings of the make that may run this test
		text, err := cmd.CombinedOutput()
		return string(text), err
	}
	// install runs make install, and compares how often go has built what was installed.
	install := func(when, path string, builds int) {
		t.Helper()
		if output, err := run(path); err != nil {
			t.Fatalf("%s: %v\n%s", when, err, output)
		}
		installed, err := os.ReadFile(filepath.Join(folder, "installed/bin/pixel-ping"))
		if got := strings.Count(string(installed), "built"); got != builds || err != nil {
			t.Errorf("%s: go has built %d times, want %d (error %v)", when, got, builds, err)
		}
	}
	// age makes every file an hour older than it is.
	age := func() {
		t.Helper()
		err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			changed := info.ModTime().Add(-time.Hour)
			return os.Chtimes(path, changed, changed)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	touch := func(path string) {
		t.Helper()
		if err := os.Chtimes(path, time.Time{}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}

	withGo := filepath.Dir(goCommand) + string(os.PathListSeparator) + tools
	age() // The sources are older than the first binary.
	install("without a binary", withGo, 1)
	install("again", withGo, 1)
	install("again, without go", tools, 1)
	touch(unitTest)
	install("after a change of a test", withGo, 1)
	age()
	touch(source)
	output, err := run(tools)
	if err == nil || !strings.Contains(output, "./pixel-ping is missing or older than its source, and ") ||
		!strings.Contains(output, "Run make build as a user who has one, then make install again.\n") {
		t.Errorf("after a change, without go: error %v\n%s", err, output)
	}
	install("after a change", withGo, 2)
	age()
	if err := os.Remove(removed); err != nil {
		t.Fatal(err)
	}
	install("after a file was removed", withGo, 3)
}
