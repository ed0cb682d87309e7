//go:build unix

package logwriter

import (
	"os"
	"syscall"
)

// isNull reports whether info has the null device's number. With PrivateDevices=, a unit has another file for the device.
func isNull(_ *os.File, info os.FileInfo) bool {
	null, err := os.Stat(os.DevNull)
	return err == nil && info.Mode()&os.ModeCharDevice != 0 &&
		info.Sys().(*syscall.Stat_t).Rdev == null.Sys().(*syscall.Stat_t).Rdev
}
