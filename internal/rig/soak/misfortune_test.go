//go:build unix

package soak

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// A stop while the application does not answer takes less than 9 seconds, and the
// log says how much was not delivered.
func TestStopWhileTheApplicationHangs(t *testing.T) {
	t.Parallel()
	application := rig.NewEndpoint(t)
	application.SetAnswer(func(conn net.Conn) { io.Copy(io.Discard, conn) })
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + application.Address})
	d.Hit(t, "a")
	d.Signal(t, syscall.SIGUSR2)
	application.Next(t)
	d.Hit(t, "b")
	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 9*time.Second {
		t.Errorf("exit status %d after %v, want 1 within 9s", status, took)
	}
	if got := d.Stderr.String(); !strings.Contains(got, "pixel-ping: 2 hits of 2 keys were not delivered") {
		t.Errorf("the standard error is:\n%s", got)
	}
}

// The daemon serves a renewed certificate soon after certbot has swapped the links
// to it. Every handshake in the meantime succeeds.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	link := func(name, to string) {
		t.Helper()
		if err := os.Symlink(to, file("fresh")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file("fresh"), file(name)); err != nil {
			t.Fatal(err)
		}
	}
	rig.Issue(t, "certificate 1", nil).Write(t, file("cert1.pem"), file("key1.pem"))
	rig.Issue(t, "certificate 2", nil).Write(t, file("cert2.pem"), file("key2.pem"))
	link("cert.pem", "cert1.pem")
	link("key.pem", "key1.pem")
	d := rig.StartDaemon(t, map[string]any{"sslcert": file("cert.pem"), "sslkey": file("key.pem")})
	served := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", d.Address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := served(); got != "certificate 1" {
		t.Fatalf("%s is served", got)
	}
	link("key.pem", "key2.pem")
	link("cert.pem", "cert2.pem")
	// It is read within 10 seconds, and a handshake takes a moment.
	for watch := rig.StartStopwatch(t); served() != "certificate 2"; {
		if watch.Took() > 11*time.Second {
			t.Fatal("the old certificate is served 11s after the change")
		}
	}
	link("key.pem", "key1.pem")
	config := d.Cmd.Args[len(d.Cmd.Args)-1]
	d.Stderr.WaitLine(t, 0, "pixel-ping: "+config+": sslkey "+file("key.pem"))
	if got := served(); got != "certificate 2" {
		t.Errorf("%s is served", got)
	}
}

// Clients that take all descriptors keep neither a flush from the application nor
// another client from being answered.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	application := rig.NewEndpoint(t)
	settings := map[string]any{"endpoint": "http://" + application.Address}
	d := rig.StartProgram(t, settings, "sh", "-c", `ulimit -n 64; exec "$0" "$1"`, rig.Binary)
	d.Stdout.WaitLine(t, 0, "Serving")
	for i := range 200 {
		conn, err := net.Dial("tcp", d.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			fmt.Fprint(conn, "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n")
		}
	}
	config := d.Cmd.Args[len(d.Cmd.Args)-1]
	d.Stderr.WaitLine(t, 0, "pixel-ping: "+config+": maxconnections: ")
	d.Hit(t, "a")
	d.Signal(t, syscall.SIGUSR2)
	if got := application.Body(t); got != "json=%7B%22a%22%3A1%7D" {
		t.Errorf("received %s", got)
	}
	d.Stop(t)
}

// Thousands of clients that send nothing, half a header, or half a body delay
// nobody else, and the daemon closes their connections in the end.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	d := rig.StartDaemon(t, nil)
	const clients = 3000
	conns := make([]net.Conn, 0, clients)
	for i := range clients {
		conn, err := net.Dial("tcp", d.Address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		switch i % 3 {
		case 1:
			fmt.Fprint(conn, "GET /pixel.gif?key=a HTTP/1.1\r\nHo")
		case 2:
			fmt.Fprint(conn, "POST /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
		}
	}
	watch := rig.StartStopwatch(t)
	for range 20 {
		d.Hit(t, "b")
	}
	if took := watch.Took(); took > 5*time.Second {
		t.Errorf("20 hits beside %d slow clients took %v", clients, took)
	}
	limit := time.Now().Add(75 * time.Second)
	for i, conn := range conns {
		conn.SetReadDeadline(limit)
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("slow client %d is still connected", i)
		}
	}
}
