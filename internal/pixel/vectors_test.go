package pixel

import (
	"slices"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// The handler answers and counts as the original does.
func TestRecordedTargets(t *testing.T) {
	vectors := rig.RecordedTargets(t)
	if len(vectors) < 500 {
		t.Errorf("there are %d vectors, want at least 500", len(vectors))
	}
	for _, vector := range vectors {
		// net/http refuses these requests before it calls the handler.
		if vector.Status == 431 || strings.ContainsAny(vector.Target, " ") {
			continue
		}
		var want []string
		if vector.Key != "" {
			want = []string{vector.Key}
		}
		answer, keys := request(t, "GET", vector.Target)
		if answer.StatusCode != vector.Status || !slices.Equal(keys, want) {
			t.Errorf("%.200q: status %d and keys %.200q, want %d and %.200q",
				vector.Target, answer.StatusCode, keys, vector.Status, want)
		}
	}
}
