package main

import (
	"path/filepath"
	"regexp"
	"runtime/debug"
	"testing"
)

func TestVersionLine(t *testing.T) {
	t.Parallel()
	const line = "Pixel Ping version " + version
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"}
	clean := debug.BuildSetting{Key: "vcs.modified", Value: "false"}
	modified := debug.BuildSetting{Key: "vcs.modified", Value: "true"}
	for _, test := range []struct {
		info *debug.BuildInfo
		want string
	}{
		{nil, line},
		{&debug.BuildInfo{}, line},
		{&debug.BuildInfo{Settings: []debug.BuildSetting{revision, clean}}, line + " (0123456789ab)"},
		{&debug.BuildInfo{Settings: []debug.BuildSetting{revision, modified}}, line + " (0123456789ab, modified)"},
	} {
		if got := versionLine(test.info); got != test.want {
			t.Errorf("%v: %q, want %q", test.info, got, test.want)
		}
	}
}

// The READMEs name the packages of this version, and the main one has its
// changelog, from which the packages take their date.
func TestReadmesNameTheVersion(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`pixel-ping[-_:](\d+\.\d+\.\d+)`)
	texts, names := readmes(t), 0
	for readme, text := range texts {
		for _, name := range named.FindAllStringSubmatch(text, -1) {
			names++
			if name[1] != version {
				t.Errorf("%s has %s, but the version is %s", readme, name[0], version)
			}
		}
	}
	if names < 3 {
		t.Errorf("the READMEs name only %d packages", names)
	}
	changelog := regexp.MustCompile(`(?m)^- \*\*New in ` + regexp.QuoteMeta(version) + `\*\* \(\d{4}-\d\d-\d\d\):\n  - `)
	if !changelog.MatchString(texts[filepath.Join(top, "README.md")]) {
		t.Errorf("the README has no changelog of version %s", version)
	}
}
