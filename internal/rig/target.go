package rig

import (
	"fmt"
	"os"
)

// Binary is the program under test. The make targets set it.
var Binary = os.Getenv("PIXEL_PING")

// NeedTarget ends the test process, with success, if no make target started it:
// the rigs need the built program and other parts, which go test ./... does not
// have. It is called first in TestMain.
func NeedTarget(target string) {
	if Binary == "" {
		fmt.Printf("These tests are run by %s.\n", target)
		os.Exit(0)
	}
}
