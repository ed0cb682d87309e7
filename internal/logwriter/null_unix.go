//go:build unix

package logwriter

import (
	"os"
	"syscall"
)

// isNull reports whether info has the number of the null device. A unit with PrivateDevices= has another file for it.
func isNull(_ *os.File, info os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && info.Mode()&os.ModeCharDevice != 0 &&
		info.Sys().(*syscall.Stat_t).Rdev == null.Sys().(*syscall.Stat_t).Rdev
}
