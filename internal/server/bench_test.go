package server

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/listen"
	"pixel-ping/internal/pixel"
)

// benchServer serves the pixel in this process and returns the address.
func benchServer(b *testing.B) string {
	b.Helper()
	listeners, err := listen.TCP(b.Context(), "127.0.0.1", 0)
	if err != nil {
		b.Fatal(err)
	}
	server := New(pixel.Handler{Hits: hits.NewStore(1 << 30)}, nil, Limits{}, io.Discard)
	go server.Serve(listeners[0])
	b.Cleanup(func() { server.Stop(context.Background()) })
	return listeners[0].Addr().String()
}

// benchHit makes a hit over a connection.
func benchHit(b *testing.B, conn net.Conn, r *bufio.Reader) {
	b.Helper()
	io.WriteString(conn, "GET /pixel.gif?key=article-42 HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		b.Fatal(err)
	}
	io.Copy(io.Discard, answer.Body)
}

// BenchmarkServedHit is a hit over a kept connection, its client included.
func BenchmarkServedHit(b *testing.B) {
	conn, err := net.Dial("tcp", benchServer(b))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		benchHit(b, conn, r)
	}
}

// BenchmarkIdleConnection shows what a kept connection holds, after a hit: the
// stack of its goroutine, and memory of the heap, its client's few bytes
// included.
func BenchmarkIdleConnection(b *testing.B) {
	const connections = 1000
	var before, after runtime.MemStats
	address := benchServer(b)
	r := bufio.NewReader(nil)
	for b.Loop() {
		conns := make([]net.Conn, connections)
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range conns {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				b.Fatal(err)
			}
			r.Reset(conn)
			benchHit(b, conn, r)
			conns[i] = conn
		}
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.StackInuse-before.StackInuse)/connections, "stack-B/conn")
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/connections, "heap-B/conn")
		for _, conn := range conns {
			conn.Close()
		}
	}
}
