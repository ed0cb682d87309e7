// Package rig holds what tests of several packages share: processes and their
// output, the daemon, endpoints, certificates, and the vectors that were
// recorded from the original. Its subdirectories hold the rigs, which run the
// real program against real counterparts. Each rig is run by its make target.
package rig

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Deadline is how long a test waits for anything before it fails. What the tests wait
// for takes a few seconds, but a browser that starts on two busy cores takes half a minute.
const Deadline = time.Minute

// Binary is the path of the program under test. The make targets set it.
var Binary = os.Getenv("PIXEL_PING")

// NeedTarget ends the test process successfully if no make target started it:
// the rigs need the built program and other programs, which go test ./... does
// not provide. TestMain calls NeedTarget first.
func NeedTarget(target string) {
	if Binary == "" {
		fmt.Printf("These tests are run by %s.\n", target)
		os.Exit(0)
	}
}

// PrintSummary prints the line that ends a rig: its name, and text if the exit
// status of the tests is 0.
func PrintSummary(name string, status int, text string) {
	if status != 0 {
		text = "FAILED, as the lines above say"
	}
	fmt.Printf("%s: %s\n", name, text)
}

// Number formats n for people: 1204 is "1,204".
func Number(n int64) string {
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	return b.String()
}
