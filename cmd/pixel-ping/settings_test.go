//go:build unix

package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// With maxconnections 1, a new connection closes the idle one before it.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	d := start(t, map[string]any{"maxconnections": 1})
	first, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	d.hit(t, "")
	first.SetDeadline(time.Now().Add(rig.Deadline))
	if _, err := first.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("error %v, want the end of the connection", err)
	}
}

// A connection that idles for longer than keepalive is closed.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	d := start(t, map[string]any{"keepalive": 1.5})
	conn, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	began := time.Now() // before the connection idles
	io.WriteString(conn, "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n")
	answer := bufio.NewReader(conn)
	if _, err := rig.ReadAnswer(answer); err != nil {
		t.Fatal(err)
	}
	if _, err := answer.ReadByte(); err != io.EOF || time.Since(began) < 1500*time.Millisecond {
		t.Errorf("after %v: error %v, want the end of the connection after 1.5 s", time.Since(began), err)
	}
}

// With the smallest maxmemory there is no room for a second long key.
func TestMaxMemory(t *testing.T) {
	t.Parallel()
	address, connections := hanging(t)
	d := start(t, map[string]any{"maxmemory": 0.02, "endpoint": address})
	long := strings.Repeat("x", 12000)
	d.hit(t, "key=1"+long, "key=2"+long)
	select {
	case <-connections:
	case <-time.After(rig.Deadline):
		t.Fatal("there is no flush, though there is no room")
	}
	d.hit(t, "key=3"+long, "key=4"+long)
	d.Signal(t, syscall.SIGTERM)
	waitForStop(t, d)
	d.Signal(t, syscall.SIGTERM)
	d.Wait(t)
	if got := d.log.String(); !strings.Contains(got, "no room for more keys (maxmemory)") {
		t.Errorf("the log is %.100s... and does not tell of hits that are not counted", got)
	}
}

// A renewed certificate is served, and files that do not load are named in the log.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	path := settings(t, map[string]any{"sslcert": cert, "sslkey": key})
	d := startCommand(t, command(path))
	renewed := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: rig.WriteCertificate(t, folder)},
		DisableKeepAlives: true,
	}}
	for limit := time.Now().Add(rig.Deadline); ; <-time.After(50 * time.Millisecond) {
		answer, err := renewed.Get(d.url)
		if err == nil {
			answer.Body.Close()
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the renewed certificate is not served: %v", err)
		}
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	line := d.log.WaitLine(t, 0, "pixel-ping: ")
	want := "pixel-ping: " + path + ": sslcert " + cert +
		": no such file or directory; the old certificate is still served"
	if line != want {
		t.Errorf("it says %q, want %q", line, want)
	}
}
