// Package systemd tells systemd how the daemon is, without a library. Other service
// managers use the same conventions.
package systemd

import (
	"context"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// statusInterval is the least time between two changes of the status.
	statusInterval = 5 * time.Second
	// sendTime is how long a notification may wait for room in the manager's queue. It
	// is short, as a stop waits, too.
	sendTime = 100 * time.Millisecond
)

// A Notifier tells the service manager how the daemon is. A nil Notifier tells
// nobody. Its methods may be called by many goroutines at once.
type Notifier struct {
	address  net.UnixAddr
	watchdog time.Duration             // between two answers to the manager's watchdog; 0 for none
	lives    atomic.Pointer[time.Time] // until when the loop that flushes is taken for alive
	closed   chan struct{}
}

// NewNotifier returns a Notifier for the socket that NOTIFY_SOCKET names, or nil if
// no manager asks for notifications. It takes NOTIFY_SOCKET and the variables of the
// watchdog out of the environment, so that no child notifies in the daemon's place.
// The caller closes the Notifier.
func NewNotifier() *Notifier {
	watchdog := watchdogInterval()
	name := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "@") {
		return nil
	}
	// Package net takes a leading @ for Linux's abstract names, as systemd does.
	return &Notifier{
		address:  net.UnixAddr{Name: name, Net: "unixgram"},
		watchdog: watchdog,
		closed:   make(chan struct{}),
	}
}

// Ready tells that the daemon serves. The first status goes with it. Until ctx ends,
// a goroutine then tells the status when it has changed, at most once in 5 seconds.
// What could not be told, Ready itself included, is told 5 seconds later. Until Close,
// another goroutine answers the manager's watchdog, see Expect.
func (n *Notifier) Ready(ctx context.Context, status func() string) {
	if n == nil {
		return
	}
	prefix, last := "READY=1\nSTATUS=", ""
	tell := func() {
		if now := status(); now != last && n.send(prefix+now) == nil {
			prefix, last = "STATUS=", now
		}
	}
	tell()
	if n.watchdog > 0 {
		go n.watch(n.watchdog)
	}
	go func() {
		ticker := time.NewTicker(statusInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				tell()
			}
		}
	}()
}

// Stopping tells that the daemon has begun to stop, and what it does then.
func (n *Notifier) Stopping(status string) {
	if n != nil {
		n.send("STOPPING=1\nSTATUS=" + status)
	}
}

// Close ends the answers to the watchdog.
func (n *Notifier) Close() {
	if n != nil {
		close(n.closed)
	}
}

// send sends variables, a line each.
func (n *Notifier) send(variables string) error {
	conn, err := net.DialUnix("unixgram", nil, &n.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err = conn.Write([]byte(variables))
	return err
}
