package soak

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// start starts the real program behind a shell command, with settings, and
// returns it and its address.
func start(t *testing.T, shell string, settings map[string]any) (*rig.Process, string) {
	t.Helper()
	port := rig.FreePort(t)
	settings["host"], settings["port"] = "127.0.0.1", port
	if settings["interval"] == nil {
		settings["interval"] = 3600
	}
	cmd := exec.Command("sh", "-c", shell+` exec "$0" "$1"`, rig.Binary, rig.WriteConfig(t, settings))
	daemon := rig.Start(t, cmd, rig.NewOutput(), rig.NewOutput())
	daemon.Stdout.WaitLine(t, 0, "Serving")
	return daemon, "127.0.0.1:" + port
}

// hit makes a hit over a connection of its own.
func hit(t *testing.T, address, key string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: rig.Deadline}
	answer, err := client.Get("http://" + address + "/pixel.gif?key=" + key)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Fatalf("status %d", answer.StatusCode)
	}
}

// The stop of a daemon whose application hangs takes less than 9 seconds, and
// names what was not delivered.
func TestStopWhileTheApplicationHangs(t *testing.T) {
	t.Parallel()
	application := rig.NewEndpoint(t)
	application.SetAnswer(func(conn net.Conn) { io.Copy(io.Discard, conn) })
	daemon, address := start(t, "", map[string]any{"endpoint": "http://" + application.Address})
	hit(t, address, "a")
	daemon.Signal(t, syscall.SIGUSR2)
	application.Next(t)
	hit(t, address, "b")
	began := time.Now()
	daemon.Signal(t, syscall.SIGTERM)
	if status, took := daemon.Wait(t), time.Since(began); status != 1 || took > 9*time.Second {
		t.Errorf("exit status %d after %v, want 1 within 9s", status, took)
	}
	if got := daemon.Stderr.String(); !strings.Contains(got, "pixel-ping: 2 hits of 2 keys were not delivered") {
		t.Errorf("it says:\n%s", got)
	}
}

// A certificate is renewed as certbot does it, by links that are swapped, while
// handshakes go on.
func TestRenewedCertificate(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	link := func(name, to string) {
		t.Helper()
		fresh := filepath.Join(folder, "fresh")
		if err := os.Symlink(to, fresh); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, generation := range []string{"1", "2"} {
		rig.WriteSelfSigned(t, filepath.Join(folder, "cert"+generation+".pem"), filepath.Join(folder, "key"+generation+".pem"), "certificate "+generation)
	}
	link("cert.pem", "cert1.pem")
	link("key.pem", "key1.pem")
	daemon, address := start(t, "", map[string]any{"sslcert": filepath.Join(folder, "cert.pem"), "sslkey": filepath.Join(folder, "key.pem")})
	served := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
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
	for began := time.Now(); served() != "certificate 2"; {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the old certificate is served 10s after the change")
		}
	}
	link("key.pem", "key1.pem")
	config := daemon.Cmd.Args[len(daemon.Cmd.Args)-1]
	daemon.Stderr.WaitLine(t, 0, "pixel-ping: "+config+": sslkey "+filepath.Join(folder, "key.pem"))
	if got := served(); got != "certificate 2" {
		t.Errorf("%s is served", got)
	}
}

// With no descriptors left the daemon waits for some, and then goes on.
func TestDescriptorsExhausted(t *testing.T) {
	t.Parallel()
	application := rig.NewEndpoint(t)
	daemon, address := start(t, "ulimit -n 64;", map[string]any{"endpoint": "http://" + application.Address})
	var conns []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		fmt.Fprint(conn, "GET /pixel.gif HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	daemon.Stderr.WaitLine(t, 0, "pixel-ping: http: Accept error")
	for _, conn := range conns {
		conn.Close()
	}
	hit(t, address, "a")
	daemon.Signal(t, syscall.SIGTERM)
	if got := application.Body(t); got != "json=%7B%22a%22%3A1%7D" {
		t.Errorf("received %s", got)
	}
	if status := daemon.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// Thousands of clients that say nothing, or half of it, or do not read, keep
// nobody else from being served, and are cut off in the end.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	_, address := start(t, "", map[string]any{})
	const clients = 3000
	conns := make([]net.Conn, 0, clients)
	for i := range clients {
		conn, err := net.Dial("tcp", address)
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
	began := time.Now()
	for range 20 {
		hit(t, address, "b")
	}
	if took := time.Since(began); took > 5*time.Second {
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
