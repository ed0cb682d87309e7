package metrics

import (
	"runtime"
	"runtime/debug"
	"time"
)

// process is what the system says of this process. A number is 0 where the system
// does not tell.
type process struct {
	started     time.Time
	resident    int64 // bytes
	descriptors int64
}

// started is when the program began, which is some milliseconds after the system
// had created the process.
var started = time.Now()

// goVersion returns the version of Go that built the program.
func goVersion() string { return runtime.Version() }

// revision returns the commit that the program was built from, or "" where the build
// did not know it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			return setting.Value
		}
	}
	return ""
}
