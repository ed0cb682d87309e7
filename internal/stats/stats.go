// Package stats has what the parts of the daemon count, for those who watch it:
// Prometheus and systemd. Each part returns its own type, so that no part knows
// another one.
package stats

import (
	"fmt"
	"strings"
	"time"
)

// Hits is what the store counts.
type Hits struct {
	Recorded int64 // hits that were counted since the start
	Refused  int64 // hits that were not, for want of room, since the start
	Pending  int64 // hits that are to be delivered, those of a flush under way included
	Keys     int64 // their keys; one that is hit again during a flush counts twice
	Aside    int64 // hits that are held apart from those, as the application refuses their keys
	Dropped  int64 // hits of such keys for which there was no room, since the start

	DeliveredHits int64 // hits that the application has accepted since the start
}

// Flushes is what the flusher counts. Without an endpoint, nothing is delivered and
// nothing fails.
type Flushes struct {
	Delivered    int64     // flushes of which everything was accepted or set aside, empty ones included
	Failed       int64     // all others
	InDoubt      int64     // hits that the application may have saved, as of the last delivery of a batch
	LastDelivery time.Time // the end of the last flush that was delivered; zero before the first
	LastFlush    time.Time // the end of the last flush; zero before the first
}

// Connections is what the server counts: the connections that are open, and those
// that it has closed since the start, by the reason.
type Connections struct {
	Open    int64
	Idle    int64 // no further request came in time
	Crowded int64 // to make room for new ones, or new ones that found no room
	Slow    int64 // the request, or the client's reading of the answer, took too long

	FailedHandshakes int64 // of TLS; not those whose connection just ended
}

// All is what the whole daemon counts.
type All struct {
	Hits
	Flushes
	Connections
}

// Status returns one line for people: "1,204 hits of 88 keys held; last flush
// delivered 12 s ago; 310 connections".
func (a All) Status(now time.Time) string {
	flush := "no flush yet"
	if !a.LastFlush.IsZero() {
		how := "failed"
		switch {
		case a.LastFlush.Equal(a.LastDelivery):
			how = "delivered"
		case a.Delivered+a.Failed == 0: // There is no endpoint.
			how = "logged"
		}
		flush = "last flush " + how + " " + age(now.Sub(a.LastFlush)) + " ago"
	}
	return fmt.Sprintf("%s of %s held; %s; %s",
		plural(a.Pending, "hit"), plural(a.Keys, "key"), flush, plural(a.Open, "connection"))
}

// age rounds d down to a whole number of its largest unit. The longer ago the last
// flush is, the more seldom the status changes.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(d, 0)/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	}
	return fmt.Sprintf("%d h", d/time.Hour)
}

// plural returns n, with commas between groups of three digits, and the noun for it.
func plural(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String() + " " + noun
}
