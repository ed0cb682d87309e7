package metrics

import (
	"fmt"
	"os"
)

// readProcess reads Linux's /proc.
func readProcess() process {
	p := process{started: started}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, resident int64 // in pages
		if _, err := fmt.Sscan(string(text), &size, &resident); err == nil {
			p.resident = resident * int64(os.Getpagesize())
		}
	}
	if folder, err := os.Open("/proc/self/fd"); err == nil {
		defer folder.Close()
		if names, err := folder.Readdirnames(0); err == nil {
			p.descriptors = int64(len(names)) - 1 // without folder's own
		}
	}
	return p
}
