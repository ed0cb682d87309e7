// Package signals turns the signals of the process into contexts and a channel.
package signals

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Signals has the signals of the process as contexts and a channel. There may be one Signals at a time.
type Signals struct {
	// Stopped is done after the first signal that stops the daemon, after the end of the
	// parent, or after Stop.
	Stopped context.Context
	Stop    context.CancelFunc
	// Abandoned is done after a second signal, or after AbandonAfter. Its cause says why.
	Abandoned context.Context
	abandon   context.CancelCauseFunc
	// Forced receives the signals that force a flush.
	Forced <-chan os.Signal

	stop, forced chan os.Signal
}

// Watch takes the signals of the process until Close is called. The end of parent ends
// Stopped but not Abandoned, since a stop still delivers. second is called at a second signal.
func Watch(parent context.Context, second func()) *Signals {
	s := &Signals{stop: make(chan os.Signal, 1), forced: make(chan os.Signal, 1)}
	s.Forced = s.forced
	notify(s.stop, s.forced)
	s.Stopped, s.Stop = context.WithCancel(parent)
	s.Abandoned, s.abandon = context.WithCancelCause(context.Background())
	go s.follow(second)
	return s
}

func (s *Signals) follow(second func()) {
	for {
		select {
		case got := <-s.stop:
			// A second signal ends the stop. SIGHUP does not: a terminal that closes
			// sends it twice, and systemd may send it after SIGTERM.
			if s.Stopped.Err() != nil && got != syscall.SIGHUP {
				s.abandon(errors.New("stopped by a second signal"))
				second()
			}
			s.Stop()
		case <-s.Abandoned.Done():
			return
		}
	}
}

// AbandonAfter ends Abandoned at that time from now.
func (s *Signals) AbandonAfter(d time.Duration) {
	time.AfterFunc(d, func() { s.abandon(errors.New("stopped before there was an answer")) })
}

// Close gives the signals back their usual effects, and ends both contexts.
func (s *Signals) Close() {
	signal.Stop(s.stop)
	signal.Stop(s.forced)
	s.Stop()
	s.abandon(nil)
}
