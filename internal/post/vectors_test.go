package post

import (
	"bufio"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// The body of a flush is the original's, byte by byte.
func TestRecordedBodies(t *testing.T) {
	vectors := rig.RecordedBodies(t)
	if len(vectors) < 10 {
		t.Errorf("there are %d vectors, want at least 10", len(vectors))
	}
	for _, vector := range vectors {
		var got strings.Builder
		c := counts(vector.Counts)
		e := &Client{secret: vector.Secret}
		if err := e.writeBody(bufio.NewWriter(&got), c); err != nil {
			t.Fatal(err)
		}
		if got.String() != vector.Body {
			t.Errorf("%d counts:\n%.2000s\nwant:\n%.2000s", len(c), got.String(), vector.Body)
		}
	}
}
