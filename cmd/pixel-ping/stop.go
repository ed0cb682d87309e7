package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
	"time"
)

// A stop takes less than the 10 seconds after which container engines kill.
const (
	stopTimeout = 6500 * time.Millisecond // for a stop to deliver what is held
	quietTime   = 2 * time.Second         // of these, for requests that are running
	logTime     = 2 * time.Second         // after these, to log what was not delivered
)

// bound makes sure that a stop comes to its end: the delivery is abandoned when
// time is up, or at once when stop receives a second signal. SIGHUP is none: a
// terminal that closes sends it twice, and systemd may after SIGTERM.
func bound(delivery context.Context, abandon context.CancelCauseFunc, stop <-chan os.Signal) {
	go func() {
		timeout := time.After(stopTimeout)
		for {
			select {
			case s := <-stop:
				if s != syscall.SIGHUP {
					abandon(errors.New("stopped by a second signal"))
				}
			case <-timeout:
				abandon(errors.New("stopped before there was an answer"))
			case <-delivery.Done():
				return
			}
		}
	}()
}

// shut has the server accept no more, and waits for what runs, until quietTime or
// ctx has ended. Then the rest is cut off: nothing is counted after it returns.
func shut(ctx context.Context, server *http.Server, open *connections) {
	quiet, cancel := context.WithTimeout(ctx, quietTime)
	defer cancel()
	// Shutdown itself may be kept by clients that do not read.
	defer context.AfterFunc(quiet, open.cutAll)()
	if server.Shutdown(quiet) != nil {
		server.Close()
	}
}

// within waits for flushed, and reports whether that came before the delivery
// was abandoned, or soon after it. It does not if there is more left to log than
// there is time for.
func within(delivery context.Context, flushed <-chan struct{}) bool {
	select {
	case <-flushed:
		return true
	case <-delivery.Done():
	}
	select {
	case <-flushed:
		return true
	case <-time.After(logTime):
		return false
	}
}

// join adds what is to be said to an error that may be nil, on the same line.
func join(err error, text string) error {
	if err == nil {
		return errors.New(text)
	}
	return fmt.Errorf("%w; %s", err, text)
}
