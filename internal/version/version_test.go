package version

import (
	"runtime/debug"
	"testing"
)

// --version prints the line of the original, and the commit where the build knows it.
func TestVersionLine(t *testing.T) {
	t.Parallel()
	const line = "Pixel Ping version " + Number
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
		if got := Line(test.info); got != test.want {
			t.Errorf("%v: %q, want %q", test.info, got, test.want)
		}
	}
}
