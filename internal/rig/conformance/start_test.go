//go:build unix

package conformance

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// ownVersion is what ours prints in place of the original's number: its own, and
// the commit where the build knows it.
var ownVersion = regexp.MustCompile(`^Pixel Ping version 1\.\d+\.\d+( \([0-9a-f]{12}(, modified)?\))?\n$`)

// Both programs give the same output and exit status for a command line with which
// they do not serve.
func TestCommandLine(t *testing.T) {
	folder := t.TempDir()
	broken := filepath.Join(folder, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"port": }`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args       []string
		difference string
	}{
		{nil, "usage"},
		{[]string{""}, "usage"},
		{[]string{"-h"}, "usage"},
		{[]string{"-help"}, "usage"},
		{[]string{"--help"}, "usage"},
		{[]string{"--help", "-v"}, "usage"},
		{[]string{"-v"}, "version"},
		{[]string{"-version"}, "version"},
		{[]string{"--version"}, "version"},
		{[]string{filepath.Join(folder, "missing.json")}, "configuration that can not be read"},
		{[]string{folder}, "configuration that can not be read"},
		{[]string{broken}, "configuration that can not be read"},
		{[]string{"-x"}, "configuration that can not be read"},
	} {
		a, b := run(t, "original", test.args...), run(t, "ours", test.args...)
		if test.difference == "usage" {
			if further, ok := strings.CutPrefix(b.stderr, a.stderr); ok && strings.Count(further, "\n") == 2 {
				a.stderr = b.stderr
			}
			differ(t, test.difference)
		}
		if test.difference == "version" {
			if a.stdout == "Pixel Ping version 0.1.6\n" && ownVersion.MatchString(b.stdout) {
				a.stdout = b.stdout
			}
			differ(t, test.difference)
		}
		if test.difference == "configuration that can not be read" {
			lines, status := 1, 78
			if test.args[0] == "-x" {
				lines, status = 4, 1 // the usage follows; no configuration is at fault
			}
			if a.status != 1 || b.status != status || strings.Count(a.stderr, "\n    at ") == 0 ||
				strings.Count(b.stderr, "\n") != lines || !strings.Contains(b.stderr, test.args[0]) {
				t.Errorf("%q\n\toriginal: %s\n\tours:     %s", test.args, a.stderr, b.stderr)
			}
			a.stderr, a.status = b.stderr, b.status
			differ(t, test.difference)
		}
		if a != b {
			t.Errorf("%q\n\toriginal: %+v\n\tours:     %+v", test.args, a, b)
		}
	}
}

// Both programs log the same at the start and at flushes. Only ours escapes control
// characters in keys.
func TestLog(t *testing.T) {
	const printable = "key=%20!\"%23$%25%26'()*%2B,-./:;<=>?@[\\]^_`{|}~%C3%A9%F0%9F%98%80"
	theirs, ours := pair(t, nil)
	var lines [2]string
	for i, s := range []*side{theirs, ours} {
		for _, query := range []string{"key=a", "key=a", "key=b+c", printable} {
			s.get(t, "/pixel.gif?"+query)
		}
		s.flush(t)
		s.Stdout.WaitLine(t, 0, "--- flushed ---")
		text := s.Stdout.String()
		lines[i] = strings.ReplaceAll(text, s.endpoint.Address, "ADDRESS") + s.Stderr.String()
	}
	serving := "Serving the pixel at http://" + ours.Address + "/pixel.gif\n"
	rest := strings.Replace(lines[1], serving, "", 1)
	if rest == lines[1] {
		t.Errorf("the line %q is not in:\n%s", serving, rest)
	}
	differ(t, "announcement")
	if sortLines(lines[0]) != sortLines(rest) {
		t.Errorf("original:\n%s\nours:\n%s", lines[0], rest)
	}

	for i, s := range []*side{theirs, ours} {
		s.get(t, "/pixel.gif?key=%0A9:%09b")
		skip := len(s.Stdout.String())
		s.flush(t)
		s.Stdout.WaitLine(t, skip, "--- flushed ---")
		lines[i] = s.Stdout.String()[skip:]
	}
	if !strings.Contains(lines[0], "\n9:\tb\n") || strings.Contains(lines[1], "\n9:\tb\n") {
		t.Errorf("original:\n%s\nours:\n%s", lines[0], lines[1])
	}
	differ(t, "control characters in a key")
}

func sortLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Without an endpoint, both programs log the same, and the counts grow.
func TestWithoutEndpoint(t *testing.T) {
	theirs, ours := pair(t, map[string]any{"endpoint": nil, "portt": 1})
	var texts [2]string
	for i, s := range []*side{theirs, ours} {
		for _, line := range []string{"1:\ta", "2:\ta"} {
			s.get(t, "/pixel.gif?key=a")
			s.Signal(t, syscall.SIGUSR2)
			s.Stdout.WaitLine(t, 0, line)
		}
		path := s.Cmd.Args[len(s.Cmd.Args)-1]
		_, log, _ := strings.Cut(s.Stdout.String(), "Got ")
		texts[i] = strings.ReplaceAll(log+s.Stderr.String(), path, "CONFIG")
	}
	const warning = "pixel-ping: CONFIG: unknown setting \"portt\" is ignored\n"
	if rest := strings.Replace(texts[1], warning, "", 1); rest != texts[0] || rest == texts[1] {
		t.Errorf("original:\n%s\nours:\n%s", texts[0], texts[1])
	}
	differ(t, "unknown settings")
}

// The original runs with these settings. Ours refuses to start and writes one line.
func TestStartsThatFail(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, test := range []struct {
		difference string
		settings   map[string]any
	}{
		{"port taken", map[string]any{"host": "127.0.0.1", "port": port, "interval": 60}},
		{"senseless settings", map[string]any{"host": "127.0.0.1", "interval": 60}},
		{"senseless settings", map[string]any{"host": "127.0.0.1", "port": "abc", "interval": 60}},
		{"senseless settings", map[string]any{"host": "127.0.0.1", "port": 0, "interval": "60s"}},
		{"senseless settings", map[string]any{"host": "127.0.0.1", "port": 0, "interval": 60, "discard": "false"}},
		{"senseless settings", map[string]any{"host": "127.0.0.1", "port": 0, "interval": 60, "endpoint": "localhost/x"}},
		{"unusual names of hosts",
			map[string]any{"host": "127.0.0.1", "port": 0, "interval": 60, "endpoint": "http://bücher.invalid/"}},
	} {
		t.Run(test.difference, func(t *testing.T) {
			t.Parallel()
			path := rig.WriteConfig(t, test.settings)
			a, b := runFor(t, 3*time.Second, "original", path), run(t, "ours", path)
			status := 78
			if test.difference == "port taken" {
				status = 1
			}
			if a.status != -1 || b.status != status || strings.Count(b.stderr, "\n") != 1 {
				t.Errorf("%v\n\toriginal: %+v\n\tours:     %+v", test.settings, a, b)
			}
			differ(t, test.difference)
		})
	}
}

// The original flushes all the time when the interval is longer than 24.8 days.
func TestLongIntervals(t *testing.T) {
	theirs, ours := pair(t, map[string]any{"interval": 30 * 24 * 3600})
	for range 20 {
		theirs.endpoint.Next(t)
	}
	if n := len(ours.endpoint.Requests); n > 0 {
		t.Errorf("ours has flushed %d times", n)
	}
	differ(t, "long intervals")
}

// A stop loses the counts of the original. Ours delivers them.
func TestStop(t *testing.T) {
	theirs, ours := pair(t, nil)
	theirs.get(t, "/pixel.gif?key=a")
	ours.get(t, "/pixel.gif?key=a")
	theirs.Signal(t, syscall.SIGTERM)
	ours.Signal(t, syscall.SIGTERM)
	if a, b := theirs.Wait(t), ours.Wait(t); a != -1 || b != 0 {
		t.Errorf("exit statuses %d and %d, want -1 (a signal) and 0", a, b)
	}
	if a, b := len(theirs.endpoint.Requests), ours.endpoint.Body(t); a != 0 || b != "json=%7B%22a%22%3A1%7D" {
		t.Errorf("the original has flushed %d times, ours %s", a, b)
	}
	differ(t, "stop")
}

// TestOriginalsTest runs the original's own test unmodified. Where the test starts
// "node bin/pixel-ping", our program is started.
func TestOriginalsTest(t *testing.T) {
	folder := t.TempDir()
	modules := filepath.Join(original, "node_modules")
	test := os.DirFS(filepath.Join(modules, "pixel-ping", "test"))
	if err := os.CopyFS(filepath.Join(folder, "test"), test); err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal(err)
	}
	wrapper := "#!/bin/sh\nshift\nexec '" + rig.Binary + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(folder, "node"), []byte(wrapper), 0o700); err != nil {
		t.Fatal(err)
	}
	coffee := exec.Command(node, filepath.Join(modules, "coffeescript", "bin", "coffee"), "test/test-ping.coffee")
	coffee.Dir = folder
	coffee.Env = append(os.Environ(), "PATH="+folder+string(os.PathListSeparator)+os.Getenv("PATH"))
	output := rig.NewOutput()
	status := rig.Start(t, coffee, output, output).Wait(t)
	if status != 0 || strings.Count(output.String(), "Assertion Succeeded") != 2 {
		t.Errorf("exit status %d:\n%s", status, output)
	}
	t.Logf("the output is:\n%s", output)
}
