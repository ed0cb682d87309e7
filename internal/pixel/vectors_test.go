package pixel

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestRecordedTargets compares with the answers of the original that make record
// has recorded: a status, a target, and the key that is counted or "".
func TestRecordedTargets(t *testing.T) {
	text, err := os.ReadFile("../../testdata/vectors/targets.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		var status int
		var target, key string
		if _, err := fmt.Sscanf(line, "%d %q %q", &status, &target, &key); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		n++
		// net/http refuses these requests before it calls the handler.
		if status == 431 || strings.ContainsAny(target, " ") {
			continue
		}
		var want []string
		if key != "" {
			want = []string{key}
		}
		answer, keys := request(t, "GET", target)
		if answer.StatusCode != status || !slices.Equal(keys, want) {
			t.Errorf("%.200q: status %d and keys %.200q, want %d and %.200q", target, answer.StatusCode, keys, status, want)
		}
	}
	if n < 500 {
		t.Errorf("there are %d vectors, want at least 500", n)
	}
}
