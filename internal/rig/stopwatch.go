package rig

import (
	"sync"
	"testing"
	"time"
)

// A Stopwatch measures how long something takes, without the time in which the machine did
// not run this process: a bound on that would be one on the machine. It is for programs
// that run beside this process and stall with it. Code that can run in a bubble needs none.
type Stopwatch struct {
	mu   sync.Mutex
	last time.Time // of the last look
	took time.Duration
}

// tick is the time between two looks. What is longer is taken for a stall.
const tick = 5 * time.Millisecond

// StartStopwatch returns a Stopwatch that runs until the test ends.
func StartStopwatch(t testing.TB) *Stopwatch {
	s := &Stopwatch{last: time.Now()}
	stopped := make(chan struct{})
	t.Cleanup(func() { close(stopped) })
	go func() {
		for {
			select {
			case <-time.After(tick):
				s.look(time.Now())
			case <-stopped:
				return
			}
		}
	}()
	return s
}

// Took returns the time since the start, without stalls.
func (s *Stopwatch) Took() time.Duration { return s.look(time.Now()) }

func (s *Stopwatch) look(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took += min(now.Sub(s.last), 2*tick) // a timer is a little late on any machine
	s.last = now
	return s.took
}
