//go:build unix

package rig

import (
	"os/exec"
	"syscall"
	"testing"
)

// StartGroup is Start for a program with children, some of which could outlive it. They
// are killed, too, when the test ends.
func StartGroup(t testing.TB, cmd *exec.Cmd, stdout, stderr *Output) *Process {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := Start(t, cmd, stdout, stderr)
	t.Cleanup(p.KillGroup)
	return p
}

// KillGroup kills a program that StartGroup has started, and its children.
func (p *Process) KillGroup() { syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGKILL) }
