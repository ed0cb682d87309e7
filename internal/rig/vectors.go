package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// The vectors are recorded from the original by make record. The paths are those
// for the tests of a package in internal.
const (
	targetsFile = "../../testdata/vectors/targets.txt"
	bodiesFile  = "../../testdata/vectors/bodies.json"
)

// RecordedTarget is what the original makes of a GET request for a target: the
// status of its answer, and the key that it counts, or "".
type RecordedTarget struct {
	Status      int
	Target, Key string
}

// String returns the line of targets.txt, with its line feed.
func (r RecordedTarget) String() string { return fmt.Sprintf("%d %q %q\n", r.Status, r.Target, r.Key) }

// RecordedTargets returns the vectors of targets.txt.
func RecordedTargets(t testing.TB) (all []RecordedTarget) {
	t.Helper()
	text, err := os.ReadFile(targetsFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var r RecordedTarget
		if _, err := fmt.Sscanf(line, "%d %q %q", &r.Status, &r.Target, &r.Key); err != nil {
			t.Fatalf("%s: %s: %v", targetsFile, line, err)
		}
		all = append(all, r)
	}
	return all
}

// RecordedBody is the body that the original posts for a secret and counts.
type RecordedBody struct {
	Secret string           `json:"secret"`
	Counts map[string]int64 `json:"counts"`
	Body   string           `json:"body"`
}

// RecordedBodies returns the vectors of bodies.json.
func RecordedBodies(t testing.TB) (all []RecordedBody) {
	t.Helper()
	text, err := os.ReadFile(bodiesFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatalf("%s: %v", bodiesFile, err)
	}
	return all
}
