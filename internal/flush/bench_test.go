package flush

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// accept is an application that accepts everything.
type accept struct{}

func (accept) Send(_ context.Context, b *hits.Batch, _ *int, _ func([]hits.Count)) endpoint.Report {
	b.Finish(len(b.List))
	return endpoint.Report{}
}

func (accept) Ping(context.Context) endpoint.Report { return endpoint.Report{} }

// BenchmarkFlush measures a flush without its POST: take, sort, log, forget.
func BenchmarkFlush(b *testing.B) {
	for n := 1000; n <= 1_000_000; n *= 10 {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			store := hits.NewStore(1 << 40)
			f := &Flusher{Store: store, Endpoint: accept{}, Stdout: logwriter.New(io.Discard), Stderr: logwriter.New(io.Discard)}
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf("https://www.example.com/2026/11/22/an-article-of-some-length-%d.html", i)
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				for _, key := range keys {
					store.Record(key)
				}
				b.StartTimer()
				f.Flush(b.Context())
				f.Stdout.Wait(time.Minute)
			}
		})
	}
}
