//go:build unix

package signals

import (
	"os"
	"os/signal"
	"syscall"
)

// notify has the signals that stop the daemon sent to stop, and the one that
// forces a flush to forced.
//
// A hang-up that was ignored when the daemon was started stays ignored: that is
// what nohup is for. A log whose reader has gone must not end the daemon, so
// SIGPIPE is ignored, as it is by Node.
func notify(stop, forced chan<- os.Signal) {
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(stop, syscall.SIGHUP)
	}
	signal.Notify(forced, syscall.SIGUSR2)
	signal.Ignore(syscall.SIGPIPE)
}
