package node

import "testing"

func BenchmarkQueryValue(b *testing.B) {
	for _, test := range []struct{ name, query string }{
		{"plain", "key=article-42"},
		{"escaped", "key=https%3A%2F%2Fwww.example.com%2Fan-article%3Fpage%3D2"},
		{"among others", "utm_source=mail&utm_medium=newsletter&key=article-42&cb=1700000000"},
		{"invalid", "key=%FFa%C3b"},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				QueryValue(test.query, "key")
			}
		})
	}
}
