package pixel

import (
	"fmt"
	"net/http"
	"testing"

	"pixel-ping/internal/hits"
)

// writer is a ResponseWriter that keeps nothing, so that only the handler's own
// work is measured.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(int)             {}
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }

// newHit returns a function that calls a new Handler with a target.
func newHit() func(target string) {
	h := Handler{Hits: hits.NewStore(1 << 40)}
	w := &writer{make(http.Header)}
	r := &http.Request{Method: "GET", ProtoMajor: 1, ProtoMinor: 1, Header: make(http.Header)}
	return func(target string) {
		r.RequestURI = target
		h.ServeHTTP(w, r)
	}
}

func TestKnownKeyTakesNoAllocation(t *testing.T) {
	hit := newHit()
	if n := testing.AllocsPerRun(100, func() { hit("/pixel.gif?key=article-42") }); n != 0 {
		t.Errorf("a hit takes %v allocations, want none", n)
	}
}

func BenchmarkKnownKey(b *testing.B) {
	hit := newHit()
	b.ReportAllocs()
	for b.Loop() {
		hit("/pixel.gif?key=article-42")
	}
}

func BenchmarkKnownEscapedKey(b *testing.B) {
	hit := newHit()
	b.ReportAllocs()
	for b.Loop() {
		hit("/pixel.gif?key=https%3A%2F%2Fwww.example.com%2Fan-article%3Fpage%3D2")
	}
}

func BenchmarkNewKey(b *testing.B) {
	targets := make([]string, 1<<20)
	for i := range targets {
		targets[i] = fmt.Sprintf("/pixel.gif?key=article-%d", i)
	}
	hit := newHit()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%len(targets) == 0 {
			hit = newHit()
		}
		hit(targets[i%len(targets)])
	}
}
