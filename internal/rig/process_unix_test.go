//go:build unix

package rig

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The children of a program end with the test that started it, also if the program has
// ended before.
func TestStartGroup(t *testing.T) {
	held, holds, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("program", func(t *testing.T) {
		cmd := exec.Command("sh", "-c", "sleep 600 & sleep 600 &")
		cmd.ExtraFiles = []*os.File{holds}
		output := NewOutput()
		StartGroup(t, cmd, output, output).Wait(t)
	})
	holds.Close()
	held.SetReadDeadline(time.Now().Add(Deadline))
	if _, err := io.Copy(io.Discard, held); err != nil {
		t.Errorf("the children of the program have not ended: %v", err)
	}
}
