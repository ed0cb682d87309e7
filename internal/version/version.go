// Package version has the version of the program.
package version

import (
	"fmt"
	"runtime/debug"
)

// Number is the only place that has the version: the scripts that make packages read
// it here.
const Number = "1.2.0"

// Line returns what --version prints: the line of the original, and the
// commit where the build knows it. info is what debug.ReadBuildInfo returned; the
// go command records the commit if the source is in a git work tree and -buildvcs
// is not false.
func Line(info *debug.BuildInfo) string {
	line := fmt.Sprintf("Pixel Ping version %s", Number)
	if info == nil {
		return line
	}
	settings := make(map[string]string)
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return line
	}
	revision = revision[:min(12, len(revision))] // as many digits as the go command's own versions have
	if settings["vcs.modified"] == "true" {
		revision += ", modified"
	}
	return fmt.Sprintf("%s (%s)", line, revision)
}
