//go:build unix

// Run starts the example application and the daemon in one terminal. It ends both
// when one of them ends or when Ctrl-C is pressed. The daemon ends first, so that
// the application receives the last counts. make run runs it.
//
//	run path/to/application path/to/pixel-ping path/to/config.json
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "Usage: run path/to/application path/to/pixel-ping path/to/config.json")
		os.Exit(2)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	fmt.Println("Open http://localhost:9188/ and press the button. Ctrl-C ends it.")
	application, applicationEnded := start(os.Args[1])
	daemon, daemonEnded := start(os.Args[2], os.Args[3])
	failed := false
	select {
	case <-stop:
	case <-applicationEnded:
		failed = true
	case <-daemonEnded:
		failed = true
	}
	daemon.Process.Signal(syscall.SIGTERM)
	select {
	case <-stop: // a second Ctrl-C ends the daemon at once
		daemon.Process.Signal(syscall.SIGTERM)
	case <-daemonEnded:
	}
	<-daemonEnded
	application.Process.Kill()
	<-applicationEnded
	if failed || !daemon.ProcessState.Success() {
		os.Exit(1)
	}
}

// start starts a program in a process group of its own, so that Ctrl-C does not end
// it. The channel is closed when the program has ended.
func start(name string, args ...string) (*exec.Cmd, <-chan struct{}) {
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ended := make(chan struct{})
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		cmd.Wait()
		close(ended)
	}()
	return cmd, ended
}
