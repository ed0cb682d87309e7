// Package e2e shows the daemon at work with the parts that its users have: real
// browsers, real front ends, real applications. Its tests run only when they are
// asked for, by make e2e, and each follows a recipe of the README.
package e2e

import (
	"fmt"
	"os"
	"testing"

	"pixel-ping/internal/rig"
)

// express is the folder in which npm has installed what the Express application
// needs. make e2e sets it.
var express = os.Getenv("EXPRESS")

func TestMain(m *testing.M) {
	rig.NeedTarget("make e2e")
	if express == "" {
		fmt.Println("FAIL: EXPRESS is not set; make e2e sets it.")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
