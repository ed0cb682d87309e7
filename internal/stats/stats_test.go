package stats

import (
	"testing"
	"time"
)

func TestStatus(t *testing.T) {
	now := time.Date(2026, 1, 31, 9, 12, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for want, a := range map[string]All{
		"0 hits of 0 keys held; no flush yet; 0 connections": {},
		"1,204 hits of 88 keys held; last flush delivered 12 s ago; 310 connections": {
			Hits{Pending: 1204, Keys: 88},
			Flushes{LastFlush: ago(12 * time.Second), LastDelivery: ago(12 * time.Second)},
			Connections{Open: 310},
		},
		"1 hit of 1 key held; last flush failed 1 min ago; 1 connection": {
			Hits{Pending: 1, Keys: 1},
			Flushes{Failed: 1, LastFlush: ago(119 * time.Second), LastDelivery: ago(time.Hour)},
			Connections{Open: 1},
		},
		"0 hits of 0 keys held; last flush logged 2 s ago; 0 connections": { // There is no endpoint.
			Flushes: Flushes{LastFlush: ago(2 * time.Second)},
		},
		"1,000,000 hits of 100,000 keys held; last flush failed 26 h ago; 12,000 connections": {
			Hits{Pending: 1000000, Keys: 100000},
			Flushes{Failed: 1, LastFlush: ago(26 * time.Hour)},
			Connections{Open: 12000},
		},
	} {
		if got := a.Status(now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
