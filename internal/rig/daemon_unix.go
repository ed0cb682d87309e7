//go:build unix

package rig

import (
	"syscall"
	"testing"
)

// Flush forces a flush and waits until it has succeeded.
func (d *Daemon) Flush(t testing.TB) {
	t.Helper()
	skip := len(d.Stdout.String())
	d.Signal(t, syscall.SIGUSR2)
	d.Stdout.WaitLine(t, skip, "--- flushed ---")
}
