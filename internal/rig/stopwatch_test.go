package rig

import (
	"testing"
	"testing/synctest"
	"time"
)

// A Stopwatch leaves out what the machine does not let it see.
func TestStopwatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := StartStopwatch(t)
		<-time.After(9 * time.Second)
		if took := s.Took(); took != 9*time.Second {
			t.Errorf("nine seconds took %v", took)
		}
		if took := s.look(time.Now().Add(time.Minute)); took > 9*time.Second+2*tick {
			t.Errorf("with a stall of a minute, nine seconds took %v", took)
		}
	})
}
