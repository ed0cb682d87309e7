package main

import (
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../../.." // the repository

// page returns the manual page that is made from the package comment.
func page(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b, []byte(read(t, "cmd/pixel-ping/main.go")), "1.2.3", "2026-11-25"); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(top + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the lines below a heading of the page.
func section(t *testing.T, page, name string) string {
	t.Helper()
	_, text, found := strings.Cut(page, ".SH "+name+"\n")
	if !found {
		t.Fatalf("the page has no section %s:\n%s", name, page)
	}
	text, _, _ = strings.Cut(text, ".SH ")
	return text
}

// The page explains every setting that the configuration takes, every flag, and
// every signal that the daemon handles.
func TestPageIsComplete(t *testing.T) {
	page := page(t)
	if !strings.HasPrefix(page, `.TH PIXEL-PING 1 2026-11-25 "Pixel Ping 1.2.3"`) {
		t.Errorf("the page begins with %.60q", page)
	}

	settings := section(t, page, "CONFIGURATION")
	taken := regexp.MustCompile(`s\.\w+\("(\w+)"[,)]`).FindAllStringSubmatch(read(t, "internal/config/config.go"), -1)
	if len(taken) < 14 {
		t.Errorf("the configuration takes only the settings %q", taken)
	}
	for _, setting := range taken {
		if !strings.Contains(settings, ".TP\n.B "+setting[1]+"\n") {
			t.Errorf("the setting %s is missing", setting[1])
		}
	}

	synopsis := strings.ReplaceAll(section(t, page, "SYNOPSIS"), `\`, "")
	flags := 0
	for line := range strings.Lines(read(t, "internal/arguments/arguments.go")) {
		names := regexp.MustCompile(`"(--?[a-z]+)"`).FindAllStringSubmatch(line, -1) // of one flag
		if names == nil {
			continue
		}
		flags++
		if !slices.ContainsFunc(names, func(name []string) bool {
			return strings.Contains(synopsis, "pixel-ping "+name[1])
		}) {
			t.Errorf("none of %q is in the synopsis:\n%s", names, synopsis)
		}
	}
	if flags < 4 {
		t.Errorf("arguments.go has only %d flags", flags)
	}

	signals := section(t, page, "SIGNALS")
	handled := handledSignals(t)
	if len(handled) != 4 {
		t.Errorf("the daemon handles the signals %q, want 4", handled)
	}
	for _, signal := range handled {
		if !strings.Contains(signals, signal) {
			t.Errorf("the signal %s is missing", signal)
		}
	}
	section(t, page, "EXIT STATUS")
}

// handledSignals returns the names of the signals that the program asks for.
func handledSignals(t *testing.T) (names []string) {
	t.Helper()
	call, name := regexp.MustCompile(`signal\.Notify\(.*\)`), regexp.MustCompile(`SIG\w+`)
	err := fs.WalkDir(os.DirFS(top), ".", func(path string, entry fs.DirEntry, err error) error {
		if path == "internal/rig" || path == "testdata" {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, "_unix.go") {
			for _, call := range call.FindAllString(read(t, path), -1) {
				names = append(names, name.FindAllString(call, -1)...)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Text that means something to man is printed as it is.
func TestEscapes(t *testing.T) {
	source := "// Pixel-ping is a test.\n//\n// .first 'second\n//\n//\t.dot\n//\t'mark \\\npackage main\n"
	var b strings.Builder
	if err := write(&b, []byte(source), "1", "2026-11-25"); err != nil {
		t.Fatal(err)
	}
	want := "\\&.first 'second\n.PP\n.RS 4\n.nf\n\\&.dot\n\\&'mark \\e\n.fi\n.RE\n"
	if !strings.HasSuffix(b.String(), want) {
		t.Errorf("the page is %s\nand should end with %s", b.String(), want)
	}
}

// A list has no form in the page, and must not vanish from it.
func TestWhatHasNoForm(t *testing.T) {
	source := "// Pixel-ping is a test.\n//\n//   - point\npackage main\n"
	if err := write(new(strings.Builder), []byte(source), "1", "2026-11-25"); err == nil {
		t.Error("a list is accepted")
	}
	if err := write(new(strings.Builder), []byte("// Something else.\npackage main\n"), "1", "2026-11-25"); err == nil {
		t.Error("a comment of another form is accepted")
	}
}
