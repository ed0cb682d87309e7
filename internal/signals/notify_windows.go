package signals

import (
	"os"
	"os/signal"
	"syscall"
)

// notify has Ctrl-C, and the end of the console or the session, sent to stop.
// There is no signal to force a flush with.
func notify(stop, forced chan<- os.Signal) {
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
}
