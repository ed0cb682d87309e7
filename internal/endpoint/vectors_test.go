package endpoint

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// TestRecordedBodies compares with the bodies of the original that make record has
// recorded.
func TestRecordedBodies(t *testing.T) {
	text, err := os.ReadFile("../../testdata/vectors/bodies.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Secret string
		Counts map[string]int64
		Body   string
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) < 10 {
		t.Fatalf("%d vectors, error %v", len(vectors), err)
	}
	for _, vector := range vectors {
		var got strings.Builder
		c := counts(vector.Counts)
		e := &Endpoint{secret: vector.Secret}
		if err := e.writeBody(bufio.NewWriter(&got), c); err != nil {
			t.Fatal(err)
		}
		if got.String() != vector.Body {
			t.Errorf("%d counts:\n%.2000s\nwant:\n%.2000s", len(c), got.String(), vector.Body)
		}
	}
}
