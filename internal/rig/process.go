package rig

import (
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Process is a running program and what it has written so far. Stdout and
// Stderr may be the same Output, which then holds both in the order of writing.
type Process struct {
	Cmd            *exec.Cmd
	Stdout, Stderr *Output
	ended          chan struct{} // closed when the process has ended
}

// Start starts a program and collects its output in stdout and stderr. The
// program is killed when the test ends.
func Start(t testing.TB, cmd *exec.Cmd, stdout, stderr *Output) *Process {
	t.Helper()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	p := StartCommand(t, cmd)
	p.Stdout, p.Stderr = stdout, stderr
	return p
}

// StartCommand is Start for a program whose output goes where cmd says.
func StartCommand(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	// A child of the program may keep the output open. Wait does not wait for it.
	cmd.WaitDelay = time.Second
	p := &Process{Cmd: cmd, ended: make(chan struct{})}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// Signal sends a signal to the process.
func (p *Process) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := p.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Wait waits for the end of the process and returns its exit status, which is -1
// if a signal ended it.
func (p *Process) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Deadline):
		// A program in Go writes on this signal what its goroutines are doing.
		p.Cmd.Process.Signal(syscall.SIGQUIT)
		select {
		case <-p.ended:
		case <-time.After(time.Second):
		}
		t.Fatalf("%v does not end; its output is:\n%s%s", p.Cmd.Args, p.Stdout, p.Stderr)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// WaitListening waits until the process listens on address.
func (p *Process) WaitListening(t testing.TB, address string) {
	t.Helper()
	for limit := time.Now().Add(Deadline); ; <-time.After(time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%v does not listen; its output is:\n%s%s", p.Cmd.Args, p.Stdout, p.Stderr)
		}
	}
}

// FreePort returns the number of a TCP port of 127.0.0.1 on which nobody listens. It is
// below those that Linux gives to connections: one of them could get the port before the
// program that is to listen on it.
func FreePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10_000 + rand.IntN(22_000))
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			listener.Close()
			return port
		}
	}
	t.Fatal("there is no free port")
	return ""
}
