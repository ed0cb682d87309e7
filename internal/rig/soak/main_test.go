//go:build unix

// Package soak runs the real program over loopback against clients that never
// pause and an application that misbehaves in every way, and keeps a ledger of
// every hit. make soak runs it.
package soak

import (
	"os"
	"os/signal"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// summary is what the tests have found, for the last line. A test that was not run
// leaves its part empty.
var summary struct{ ledger, cuts, kills, floods string }

func TestMain(m *testing.M) {
	rig.NeedTarget("make soak")
	// The daemons inherit what this process ignores. Under nohup, they would ignore
	// SIGHUP, unless this process handles it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	status := m.Run()
	rig.PrintSummary("soak", status, summary.ledger+summary.cuts+summary.kills+summary.floods)
	os.Exit(status)
}
