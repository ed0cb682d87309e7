//go:build unix

package memory

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
	"pixel-ping/internal/server"
)

// overTLS shakes hands and sends bytes.
func overTLS(conn net.Conn, bytes string) error {
	_, err := io.WriteString(tls.Client(conn, &tls.Config{InsecureSkipVerify: true}), bytes)
	return err
}

// worst are the ways in which a client makes its connection as large as the server
// allows.
var worst = []struct {
	name string
	open func(conn net.Conn) error
}{
	{"a handshake without an end", func(conn net.Conn) error {
		const record = "\x16\x03\x01\x40\x00" // of 16 kB
		hello := "\x01\x00\xff\xff" + strings.Repeat("x", 16<<10)
		_, err := io.WriteString(conn, record+hello[:16<<10]+record+hello[:7<<10])
		return err
	}},
	{"a target without an end", func(conn net.Conn) error {
		return overTLS(conn, "GET /?"+strings.Repeat("x", 20_000))
	}},
	{"a record without an end, after as many headers as there may be", func(conn net.Conn) error {
		headers := "GET / HTTP/1.1\r\nHost: x\r\n"
		for i := range 98 {
			headers += fmt.Sprintf("X%d: %.180d\r\n", i, i)
		}
		if err := overTLS(conn, headers); err != nil {
			return err
		}
		_, err := io.WriteString(conn, "\x17\x03\x03\x41\x00"+strings.Repeat("x", 16<<10))
		return err
	}},
}

// No connection takes more than perConnection, whatever its client does, and one that
// takes most takes little less.
func TestMemoryOfAConnection(t *testing.T) {
	const n = 200
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var largest int64
	for _, kind := range worst {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := server.New(http.NotFoundHandler(), func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &certificate, nil
		}, server.Limits{}, io.Discard)
		go s.Serve(listener)
		held := func() int64 {
			runtime.GC()
			runtime.GC() // the first one may have begun before
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc + m.StackInuse)
		}
		before := held()
		var clients []*os.File
		for range n {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(rig.Deadline))
			if err := kind.open(conn); err != nil {
				t.Fatalf("%s: %v", kind.name, err)
			}
			client, err := conn.(*net.TCPConn).File() // without what the client has in memory
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			defer client.Close()
			clients = append(clients, client)
		}
		// While the server reads, it holds garbage, too. It has read everything if what it holds
		// has changed by a hundredth at most for half a second.
		each, limit := int64(0), time.Now().Add(rig.Deadline)
		for same := 0; same < 10 && time.Now().Before(limit); <-time.After(50 * time.Millisecond) {
			now := (held() - before) / n
			if same++; max(now, each)-min(now, each) > each/100 {
				each, same = now, 0
			}
		}
		if open := s.Stats().Open; open != n {
			t.Errorf("%s: %d of %d connections are open", kind.name, open, n)
		}
		t.Logf("%s: %d bytes", kind.name, each)
		largest = max(largest, each)
		for _, client := range clients {
			client.Close()
		}
		s.Stop(t.Context())
	}
	if largest > perConnection || largest < perConnection/4*3 {
		t.Errorf("a connection takes %d bytes at worst, and perConnection is %d", largest, perConnection)
	}
}
