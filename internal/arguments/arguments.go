// Package arguments reads the command line.
package arguments

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"pixel-ping/internal/version"
)

// usage begins with the original's line.
const usage = `Usage: pixel-ping path/to/config.json
       pixel-ping --check path/to/config.json
       pixel-ping --health path/to/config.json
`

// What to do with a configuration.
const (
	Run    = "" // the daemon
	Check  = "--check"
	Health = "--health"
)

// Parse reads args, the command line without the program's name. It returns what to do
// with the configuration at path. If path is empty, Parse has printed what was asked
// for, or what is wrong, and the program ends with status. Further arguments are ignored,
// as in the original, but with a warning. Root is told that its check may see more than
// the service does.
func Parse(args []string, stdout, stderr io.Writer) (what string, path Path, status int) {
	first := append(slices.Clip(args), "")[0]
	switch first {
	case "-v", "-version", "--version":
		info, _ := debug.ReadBuildInfo()
		fmt.Fprintln(stdout, version.Line(info))
		return "", "", 0
	case Check, Health:
		what, args = first, args[1:]
	}
	name := append(slices.Clip(args), "")[0]
	switch {
	case what != Run && name == "":
		fmt.Fprintf(stderr, "pixel-ping: %s needs the path of a configuration\n%s", what, usage)
		return "", "", 1
	case slices.Contains([]string{"", "-h", "-help", "--help"}, name):
		fmt.Fprint(stderr, usage)
		return "", "", 0
	case isMissingFlag(name):
		fmt.Fprintf(stderr, "pixel-ping: %s is not a flag, and there is no such file\n%s", OneLine(name), usage)
		return "", "", 1
	}
	if len(args) > 1 {
		fmt.Fprintf(stderr, "pixel-ping: arguments after the configuration are ignored: %q\n", args[1:])
	}
	if what == Check && os.Geteuid() == 0 {
		fmt.Fprintf(stderr, "pixel-ping: root may read what the service may not; this sees what the service sees: "+
			"runuser -u pixel-ping -- pixel-ping --check %s\n", OneLine(Quote(name)))
	}
	return what, Path(name), 0
}

// isMissingFlag reports whether name looks like a flag. As in the original, a file may
// have the name of one.
func isMissingFlag(name string) bool {
	_, err := os.Stat(name)
	return strings.HasPrefix(name, "-") && errors.Is(err, fs.ErrNotExist)
}

// A Path is the path of a configuration. Lines about the configuration begin with it.
type Path string

// String returns the path as a part of a line.
func (p Path) String() string { return OneLine(string(p)) }

// Name returns err, which may be nil, with the path before it.
func (p Path) Name(err error) error {
	if err != nil {
		err = fmt.Errorf("%s: %w", string(p), err)
	}
	return err
}

// Tell writes a line about the configuration to stderr.
func (p Path) Tell(stderr io.Writer, line string) {
	fmt.Fprintf(stderr, "pixel-ping: %s: %s\n", p, OneLine(line))
}

// Answer writes the answer to Check or Health to stdout unless err is not nil. It
// returns Name of err.
func (p Path) Answer(stdout io.Writer, answer string, err error) error {
	if err == nil {
		fmt.Fprintf(stdout, "%s: %s\n", p, answer)
	}
	return p.Name(err)
}

// OneLine escapes the line ends in text. The name of a file may bring some.
func OneLine(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }

// Quote returns a path as a shell takes it.
func Quote(path string) string {
	if !strings.ContainsAny(path, " \t\n'\"\\$`&;|<>()*?[]#~!{}") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
