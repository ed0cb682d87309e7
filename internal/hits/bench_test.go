package hits

import (
	"fmt"
	"testing"
)

// BenchmarkRecord records hits of a thousand known keys. The flag -cpu sets how
// many goroutines contend for the lock.
func BenchmarkRecord(b *testing.B) { benchmarkRecord(b, NewStore(1<<30)) }

func benchmarkRecord(b *testing.B, store *Store) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("article-%d", i)
	}
	for _, key := range keys {
		store.Record(key)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			store.Record(keys[i%len(keys)])
		}
	})
}
