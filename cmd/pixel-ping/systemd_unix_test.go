//go:build unix

package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// startInheriting starts a daemon that inherits listening sockets, as systemd's
// socket activation has it.
func startInheriting(t *testing.T, values map[string]any, sockets ...*os.File) *process {
	t.Helper()
	daemon := command(settings(t, values))
	const script = `export LISTEN_PID=$$ LISTEN_FDS=$1; shift; exec "$@"`
	shell := exec.Command("sh", append([]string{"-c", script, "sh", strconv.Itoa(len(sockets))}, daemon.Args...)...)
	shell.Env, shell.ExtraFiles = daemon.Env, sockets
	return startCommand(t, shell)
}

// A socket that is inherited takes the place of host and port. Who connects while no
// daemon runs is answered by the next one.
func TestInheritedSocket(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	app := newApplication(t)
	var waiting net.Conn
	for _, values := range []map[string]any{
		{"port": nil, "host": nil, "endpoint": app.URL},
		{"port": 1, "host": "192.0.2.1", "endpoint": app.URL},
	} {
		d := startInheriting(t, values, socket)
		if got := d.address(); got != listener.Addr().String() {
			t.Errorf("the daemon serves at %s, want %s", got, listener.Addr())
		}
		want := "json=%7B%22a%22%3A1%7D"
		if waiting != nil {
			answer, err := rig.ReadAnswer(bufio.NewReader(waiting))
			if err != nil || answer.StatusCode != 200 {
				t.Errorf("a request that waited is answered with %v, %v", answer, err)
			}
			waiting.Close()
			want = "json=%7B%22a%22%3A1%2C%22waited%22%3A1%7D"
		}
		d.hit(t, "key=a")
		d.Signal(t, syscall.SIGTERM)
		if status := d.Wait(t); status != 0 {
			t.Errorf("exit status %d; the log is:\n%s", status, d.log)
		}
		app.expect(t, want)
		if waiting, err = net.Dial("tcp", listener.Addr().String()); err != nil {
			t.Fatal(err)
		}
		waiting.SetDeadline(time.Now().Add(rig.Deadline))
		io.WriteString(waiting, "GET /pixel.gif?key=waited HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	waiting.Close()
}

// Every socket that is inherited is served, TCP and Unix alike.
func TestInheritedSockets(t *testing.T) {
	folder, err := os.MkdirTemp("", "inherit") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	var listeners []net.Listener
	var sockets []*os.File
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": folder + "/s"} {
		if network == "tcp6" && !rig.HasIPv6(t) {
			continue
		}
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		socket, err := listener.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		listeners, sockets = append(listeners, listener), append(sockets, socket)
	}
	for range 5 { // which of them is served first differs from one start to the next
		d := startInheriting(t, map[string]any{"port": nil, "host": nil}, sockets...)
		for _, listener := range listeners {
			address := listener.Addr()
			conn, err := net.Dial(address.Network(), address.String())
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(rig.Deadline))
			io.WriteString(conn, "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\n\r\n")
			answer, err := rig.ReadAnswer(bufio.NewReader(conn))
			if err != nil {
				t.Errorf("%s %s: %v", address.Network(), address, err)
			} else if answer.StatusCode != 200 {
				t.Errorf("%s %s answers %s", address.Network(), address, answer.Status)
			}
			conn.Close()
		}
		d.Signal(t, syscall.SIGTERM)
		d.Wait(t)
	}
}

// The daemon tells systemd that it serves, how it is, and that it stops.
func TestNotifications(t *testing.T) {
	folder, err := os.MkdirTemp("", "notify") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	expect := func(want string) {
		t.Helper()
		manager.SetDeadline(time.Now().Add(rig.Deadline))
		buffer := make([]byte, 4096)
		n, err := manager.Read(buffer)
		if got := string(buffer[:n]); !regexp.MustCompile(`^`+want+`$`).MatchString(got) || err != nil {
			t.Errorf("the manager was told %q, error %v, want %q", got, err, want)
		}
	}
	app := newApplication(t)
	cmd := command(settings(t, map[string]any{"endpoint": app.URL}))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	d := startCommand(t, cmd)
	expect(`READY=1\nSTATUS=0 hits of 0 keys held; no flush yet; 0 connections`)
	client := http.Client{Transport: new(http.Transport)}
	answer, err := client.Get(d.url + "?key=a")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	expect(`STATUS=1 hit of 1 key held; no flush yet; [01] connections?`)
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%22a%22%3A1%7D")
	expect(`STATUS=0 hits of 0 keys held; last flush delivered \d s ago; [01] connections?`)
	d.Signal(t, syscall.SIGTERM)
	expect(`STOPPING=1\nSTATUS=0 hits of 0 keys held; last flush delivered \d s ago; [01] connections?`)
	d.Wait(t)
}

// What Prometheus scrapes is on an address of its own, which counts for no
// connection of the pixel's.
func TestMetrics(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL, "metrics": "127.0.0.1:0", "maxconnections": 1})
	url := strings.TrimPrefix(d.log.WaitLine(t, 0, "Serving metrics at "), "Serving metrics at ")
	get := func(url string) (status int, text string) {
		t.Helper()
		answer, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		page, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(page)
	}
	if status, text := get(strings.TrimSuffix(d.url, "pixel.gif") + "metrics"); status != 404 || text != "" {
		t.Errorf("the port of the pixel answers /metrics with %d and %q", status, text)
	}
	d.hit(t, "key=a", "key=a", "key=b")
	// expect waits for a page with these samples: a flush is counted after its last line.
	expect := func(samples ...string) {
		t.Helper()
		for limit := time.Now().Add(rig.Deadline); ; <-time.After(time.Millisecond) {
			status, page := get(url)
			lacking := slices.DeleteFunc(slices.Clone(samples), func(sample string) bool {
				return strings.Contains(page, "\n"+sample+"\n")
			})
			if len(lacking) == 0 {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("the page, with status %d, lacks %q:\n%s", status, lacking, page)
			}
		}
	}
	expect("pixel_ping_hits_total 3", "pixel_ping_pending_hits 3", "pixel_ping_pending_keys 2",
		"pixel_ping_last_delivery_timestamp_seconds 0", "pixel_ping_connections 1")
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%22a%22%3A2%2C%22b%22%3A1%7D")
	d.log.WaitLine(t, 0, "--- flushed ---")
	expect("pixel_ping_hits_total 3", "pixel_ping_pending_hits 0", "pixel_ping_pending_keys 0",
		"pixel_ping_delivered_hits_total 3", `pixel_ping_flushes_total{result="delivered"} 1`,
		"pixel_ping_connections 1", `pixel_ping_connections_closed_total{reason="crowded"} 0`)
	d.Signal(t, syscall.SIGTERM)
	d.Wait(t)
	if conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/metrics")); err == nil {
		conn.Close()
		t.Error("the metrics are served after the end")
	}
}
