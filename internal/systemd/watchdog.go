package systemd

import (
	"os"
	"strconv"
	"time"
)

// slack is how much later than promised a sign of life may be: a flush also lists its
// keys, and writes to disks.
const slack = 30 * time.Second

// watchdogInterval returns half of the time after which the manager restarts the daemon
// unless it is told that the daemon lives (WatchdogSec=), or 0 if it does not ask for
// that. It takes the variables for it out of the environment.
func watchdogInterval() time.Duration {
	limit, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	process := os.Getenv("WATCHDOG_PID")
	os.Unsetenv("WATCHDOG_USEC")
	os.Unsetenv("WATCHDOG_PID")
	if process != "" && process != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(max(limit, 0)) * time.Microsecond / 2
}

// Expect is a sign of life of the loop that flushes, and its promise to call Expect again
// within that time. While the loop keeps its promises, the manager's watchdog is told
// that the daemon lives. Any other goroutine could tell so while nothing is delivered.
func (n *Notifier) Expect(within time.Duration) {
	if n != nil {
		until := time.Now().Add(within + slack)
		n.lives.Store(&until)
	}
}

// watch answers the manager's watchdog until Close is called, unless the loop that
// flushes has not kept its promise.
func (n *Notifier) watch(every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if until := n.lives.Load(); until != nil && time.Now().Before(*until) {
			n.send("WATCHDOG=1")
		}
		select {
		case <-ticker.C:
		case <-n.closed:
			return
		}
	}
}
