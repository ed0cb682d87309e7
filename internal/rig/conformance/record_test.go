package conformance

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestRecord writes what the original answers to the vectors that make test
// holds our code against without Node. It runs only for make record, which says
// where to: RECORD is the folder.
func TestRecord(t *testing.T) {
	folder := os.Getenv("RECORD")
	if folder == "" {
		t.Skip("make record runs it")
	}
	recordTargets(t, filepath.Join(folder, "targets.txt"))
	recordBodies(t, filepath.Join(folder, "bodies.json"))
}

// recordTargets writes a line for each of the curated targets that are no
// difference: the status, the target, and the key or "".
func recordTargets(t *testing.T, path string) {
	theirs := startSide(t, "original", nil)
	var b strings.Builder
	for _, group := range curated {
		if group.difference != "" {
			continue
		}
		for _, target := range group.targets {
			answer := theirs.get(t, target)
			key := ""
			for k := range theirs.counts(t) {
				key = k
			}
			fmt.Fprintf(&b, "%s %q %q\n", answer.status, target, key)
		}
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recordBodies writes an array of bodies with the secret and the counts they are
// of. The keys are sent in the order of their bytes, and those that JavaScript
// puts first alone, so that the bodies are to be ours to the byte.
func recordBodies(t *testing.T, path string) {
	type body struct {
		Secret string           `json:"secret"`
		Counts map[string]int64 `json:"counts"`
		Body   string           `json:"body"`
	}
	var all []body
	record := func(theirs *side, secret string, keys ...string) {
		counts := make(map[string]int64)
		for i, key := range keys {
			for range i%3 + 1 {
				theirs.get(t, "/pixel.gif?key="+url.QueryEscape(key))
				counts[key]++
			}
		}
		all = append(all, body{secret, counts, theirs.flush(t)})
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
