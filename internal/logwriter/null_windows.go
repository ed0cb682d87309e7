package logwriter

import (
	"os"
	"syscall"
)

// isNull reports whether f is the null device: info describes a device, but it is no console.
func isNull(f *os.File, info os.FileInfo) bool {
	var mode uint32
	return info.Mode()&os.ModeCharDevice != 0 && syscall.GetConsoleMode(syscall.Handle(f.Fd()), &mode) != nil
}
