//go:build unix

// Package e2e runs the daemon with real browsers, front ends and applications. Each
// test follows a recipe of testdata/recipes. make e2e runs it.
package e2e

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"pixel-ping/internal/rig"
)

// express is the folder in which npm installed the packages of the Express
// application. make e2e sets it.
var express = os.Getenv("EXPRESS")

// hits counts the hits that the tests compared with what an application received,
// for the last line.
var hits struct{ browser, front, fleet, application, restarts, stream atomic.Int64 }

func TestMain(m *testing.M) {
	rig.NeedTarget("make e2e")
	if express == "" {
		fmt.Println("FAIL: EXPRESS is not set; make e2e sets it.")
		os.Exit(1)
	}
	status := m.Run()
	rig.PrintSummary("e2e", status, fmt.Sprintf(
		"%s hits by browsers, %s through nginx, %s by a fleet, %s during restarts, %s for the applications "+
			"and %s into a stream: each arrived once",
		rig.Number(hits.browser.Load()), rig.Number(hits.front.Load()), rig.Number(hits.fleet.Load()),
		rig.Number(hits.restarts.Load()), rig.Number(hits.application.Load()), rig.Number(hits.stream.Load())))
	os.Exit(status)
}
