//go:build linux

// Package packages makes the archives, the Debian packages and the container images
// of a release, installs them, and runs what is in them. make packages runs it. It
// needs root, for chroot and mount, and changes nothing outside its folder.
package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// made is the folder in which TestMain has made everything, and again is one in
// which TestMain has made archives and Debian packages a second time.
var made, again source

// A source is a copy of the repository, with one commit.
type source struct {
	folder  string
	version string // as version.go has it
	commit  string // the first 12 digits
}

func TestMain(m *testing.M) {
	rig.NeedTarget("make packages")
	if os.Getuid() != 0 {
		fmt.Println("FAIL: make packages needs root, for chroot and mount.")
		os.Exit(1)
	}
	folder, err := os.MkdirTemp("", "packages")
	if err == nil {
		err = makeAll(folder)
	}
	status := 1
	if err != nil {
		fmt.Println("FAIL:", err)
	} else {
		status = m.Run()
	}
	os.RemoveAll(folder)
	rig.PrintSummary("packages", status,
		"archives and Debian packages are the same from two folders; the package and the image run")
	os.Exit(status)
}

func makeAll(folder string) (err error) {
	// The second folder has a longer path, and its user another umask and time zone.
	if made, err = copySource(filepath.Join(folder, "one")); err != nil {
		return err
	}
	if again, err = copySource(filepath.Join(folder, "two", "with a space")); err != nil {
		return err
	}
	if err := made.make("022", "UTC", "dist", "deb", "image"); err != nil {
		return err
	}
	return again.make("077", "Asia/Kathmandu", "dist", "deb")
}

// copySource copies the repository to a folder and commits it there, so that the
// go command knows a commit. The commit is the same for each folder.
func copySource(folder string) (source, error) {
	const top = "../../.." // the repository
	s := source{folder: folder}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return s, err
	}
	for _, name := range []string{
		"cmd", "internal", "testdata", "go.mod", "go.sum", "Makefile", "README.md", "config.example.json", ".gitignore",
	} {
		if _, err := output(exec.Command("cp", "-R", filepath.Join(top, name), folder)); err != nil {
			return s, err
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "internal/version/version.go"))
	if err != nil {
		return s, err
	}
	s.version = regexp.MustCompile(`const Number = "(.*)"`).FindStringSubmatch(string(text))[1]
	for _, arguments := range []string{"init -q", "add -A", "commit -q -m copy", "rev-parse HEAD"} {
		git := exec.Command("git", append([]string{"-c", "user.name=rig", "-c", "user.email=rig@example.org",
			"-c", "commit.gpgsign=false"}, strings.Fields(arguments)...)...)
		git.Dir = folder
		git.Env = append(os.Environ(), "GIT_AUTHOR_DATE=@1700000000 +0000", "GIT_COMMITTER_DATE=@1700000000 +0000")
		if s.commit, err = output(git); err != nil {
			return s, err
		}
	}
	s.commit = s.commit[:12]
	return s, nil
}

// make runs make in the folder. Its go command records the commit, whatever the
// environment says.
func (s source) make(umask, zone string, targets ...string) error {
	cmd := exec.Command("sh", append([]string{"-c", "umask " + umask + ` && exec make "$@"`, "make"}, targets...)...)
	cmd.Dir = s.folder
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=true", "TZ="+zone, "MAKEFLAGS=", "MAKELEVEL=")
	_, err := output(cmd)
	return err
}

// path returns the path of something that make has made.
func (s source) path(name string) string { return filepath.Join(s.folder, ".build", name) }

// output runs a command and returns what it writes. If it fails, that is in the
// error.
func output(cmd *exec.Cmd) (string, error) {
	text, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return string(text), nil
}

// run is output for a command that must succeed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	text, err := output(exec.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}
