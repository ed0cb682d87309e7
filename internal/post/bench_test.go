package post

import (
	"fmt"
	"io"
	"testing"

	"pixel-ping/internal/hits"
)

func BenchmarkWriteRequest(b *testing.B) {
	e := &Client{target: "/", host: "example.com", secret: "known"}
	for n := 1000; n <= 1_000_000; n *= 10 {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			counts := make([]hits.Count, n)
			for i := range counts {
				key := fmt.Sprintf("https://www.example.com/2026/11/22/an-article-of-some-length-%d.html", i)
				counts[i] = hits.Count{Key: key, Hits: int64(i + 1)}
			}
			b.ReportAllocs()
			for b.Loop() {
				e.writeRequest(io.Discard, "id", counts)
			}
		})
	}
}
