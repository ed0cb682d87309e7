// Package signals has the signals of the process end the daemon's contexts. There
// may be one Signals at a time.
package signals

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Signals is what the signals of the process do.
type Signals struct {
	// Running ends at the first signal that stops the daemon, with the parent, or
	// with End.
	Running context.Context
	End     context.CancelFunc
	// Delivery ends at a second signal, or after AbandonAfter. Its cause says why.
	Delivery context.Context
	abandon  context.CancelCauseFunc
	// Forced receives the signals that force a flush.
	Forced <-chan os.Signal

	stop, forced chan os.Signal
}

// Watch takes the signals of the process until Close is called. Parent is the
// parent of Running alone: a stop goes on delivering. Watch calls second at a
// second signal.
func Watch(parent context.Context, second func()) *Signals {
	s := &Signals{stop: make(chan os.Signal, 1), forced: make(chan os.Signal, 1)}
	s.Forced = s.forced
	notify(s.stop, s.forced)
	s.Running, s.End = context.WithCancel(parent)
	s.Delivery, s.abandon = context.WithCancelCause(context.Background())
	go s.follow(second)
	return s
}

func (s *Signals) follow(second func()) {
	for {
		select {
		case got := <-s.stop:
			// A second signal ends the stop. SIGHUP does not: a terminal that closes
			// sends it twice, and systemd may send it after SIGTERM.
			if s.Running.Err() != nil && got != syscall.SIGHUP {
				s.abandon(errors.New("stopped by a second signal"))
				second()
			}
			s.End()
		case <-s.Delivery.Done():
			return
		}
	}
}

// AbandonAfter ends Delivery at that time from now.
func (s *Signals) AbandonAfter(d time.Duration) {
	time.AfterFunc(d, func() { s.abandon(errors.New("stopped before there was an answer")) })
}

// Close gives the signals back their usual effects, and ends both contexts.
func (s *Signals) Close() {
	signal.Stop(s.stop)
	signal.Stop(s.forced)
	s.End()
	s.abandon(nil)
}
