package main

import (
	"path/filepath"
	"regexp"
	"testing"

	"pixel-ping/internal/version"
)

// The READMEs name the packages of this version, and the main one has its
// changelog, from which the packages take their date.
func TestReadmesNameTheVersion(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`pixel-ping[-_:](\d+\.\d+\.\d+)`)
	texts, names := readmes(t), 0
	for readme, text := range texts {
		for _, name := range named.FindAllStringSubmatch(text, -1) {
			names++
			if name[1] != version.Number {
				t.Errorf("%s has %s, but the version is %s", readme, name[0], version.Number)
			}
		}
	}
	if names < 3 {
		t.Errorf("the READMEs name only %d packages", names)
	}
	number := regexp.QuoteMeta(version.Number)
	changelog := regexp.MustCompile(`(?m)^- \*\*New in ` + number + `\*\* \(\d{4}-\d\d-\d\d\):\n  - `)
	if !changelog.MatchString(texts[filepath.Join(top, "README.md")]) {
		t.Errorf("the README has no changelog of version %s", version.Number)
	}
}
