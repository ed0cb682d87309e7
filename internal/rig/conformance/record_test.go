//go:build unix

package conformance

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// TestRecord records the original's behaviour in the vectors that make test
// compares our code with. Only make record runs it. RECORD is the folder of the
// vectors.
func TestRecord(t *testing.T) {
	folder := os.Getenv("RECORD")
	if folder == "" {
		t.Skip("make record runs this test")
	}
	recordTargets(t, filepath.Join(folder, "targets.txt"))
	recordBodies(t, filepath.Join(folder, "bodies.json"))
}

// recordTargets records the curated targets with which the programs do not differ.
func recordTargets(t *testing.T, path string) {
	theirs := startSide(t, "original", nil)
	var b strings.Builder
	for _, group := range curated {
		if group.difference != "" {
			continue
		}
		for _, target := range group.targets {
			recorded := rig.RecordedTarget{Target: target}
			var err error
			if recorded.Status, err = strconv.Atoi(theirs.get(t, target).status); err != nil {
				t.Fatalf("%s: %v", target, err)
			}
			for key := range theirs.counts(t) {
				recorded.Key = key
			}
			b.WriteString(recorded.String())
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recordBodies records bodies that must be ours to the byte. The original posts
// keys in the order of the first hits, so the hits are made in our order. It posts
// keys that are integers before all others, so each of these has a body of its own.
func recordBodies(t *testing.T, path string) {
	var all []rig.RecordedBody
	record := func(theirs *side, secret string, keys ...string) {
		counts := make(map[string]int64)
		for i, key := range keys {
			for range i%3 + 1 {
				theirs.get(t, "/pixel.gif?key="+url.QueryEscape(key))
				counts[key]++
			}
		}
		all = append(all, rig.RecordedBody{Secret: secret, Counts: counts, Body: theirs.flush(t)})
	}
	keys := everyCharacter()
	slices.Sort(keys)
	keys = slices.Compact(keys)
	integer := func(key string) bool {
		n, err := strconv.ParseUint(key, 10, 32)
		return err == nil && strconv.FormatUint(n, 10) == key
	}
	theirs := startSide(t, "original", nil)
	record(theirs, "")
	record(theirs, "", slices.DeleteFunc(slices.Clone(keys), integer)...)
	for _, key := range keys {
		if integer(key) {
			record(theirs, "", key)
		}
	}
	for _, secret := range []string{"swordfish", " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "é漢😀\u2028\t\n"} {
		record(startSide(t, "original", map[string]any{"secret": secret}), secret, "a")
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
