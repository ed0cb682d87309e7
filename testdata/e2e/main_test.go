// Package e2e shows the daemon at work with the parts that its users have: real
// browsers, real front ends, real applications. Its tests run only when they are
// asked for, by make e2e, and each follows a recipe of the README.
package e2e

import (
	"fmt"
	"os"
	"testing"
)

// binary is our program; the Makefile says where it is.
var binary = os.Getenv("PIXEL_PING")

func TestMain(m *testing.M) {
	if binary == "" {
		fmt.Println("FAIL: run make e2e, which says where the program is.")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
