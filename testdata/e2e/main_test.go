// Package e2e shows the daemon at work with the parts that its users have: real
// browsers, real front ends, real applications. Its tests run only when they are
// asked for, by make e2e, and each follows a recipe of the README.
package e2e

import (
	"fmt"
	"os"
	"testing"
)

// The Makefile says where these are: our program, and the folder that npm has
// installed what the Express application needs in.
var (
	binary  = os.Getenv("PIXEL_PING")
	express = os.Getenv("EXPRESS")
)

func TestMain(m *testing.M) {
	if binary == "" || express == "" {
		fmt.Println("FAIL: run make e2e, which says where the program and the rest are.")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
