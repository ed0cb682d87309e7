//go:build unix

package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/arguments"
	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/journal"
	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/rig"
)

// socketFolder returns a folder for Unix sockets, whose paths have to be short.
func socketFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "life")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// A start that fails at its last step leaves no socket, no listener, and no lock or file
// of the journal behind.
func TestStartThatFailsLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	folder := socketFolder(t)
	socket, dir := filepath.Join(folder, "s"), filepath.Join(folder, "journal")
	port := rig.FreePort(t)
	for _, values := range []map[string]any{
		{"port": socket, "host": nil},
		{"port": port},
	} {
		values["metrics"], values["journal"] = taken.Addr().String(), dir
		stderr := rig.NewOutput()
		if got := run(t.Context(), []string{settings(t, values)}, io.Discard, stderr); got != 1 {
			t.Errorf("exit status %d, want 1", got)
		}
		if got := stderr.String(); !strings.Contains(got, "metrics: cannot listen on ") {
			t.Errorf("it says %q", got)
		}
		if _, err := os.Lstat(socket); !os.IsNotExist(err) {
			t.Errorf("there is still a socket (error %v)", err)
		}
		if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			conn.Close()
			t.Error("it still listens")
		}
		if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
			t.Errorf("the journal has %v, error %v", left, err)
		}
		j, _, _, err := journal.Open(dir, func(line string) { t.Error(line) })
		if err != nil {
			t.Fatal(err)
		}
		j.Close()
	}
}

// A signal ends a daemon that is still looking up its host.
func TestSignalDuringTheStart(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM) // or a daemon that does not handle it would end the test
	defer signal.Reset(syscall.SIGTERM)
	stoppedDuringTheStart(t, t.Context(), func() { syscall.Kill(os.Getpid(), syscall.SIGTERM) })
}

// Without a second signal, too, a log whose reader is slow ends in time for the last line
// to say that the log does not have the counts.
func TestStopLimitsTheLog(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	port, stderr := rig.FreePort(t), rig.NewOutput()
	cmd := command(settings(t, map[string]any{"endpoint": nobody, "port": port}))
	cmd.Stdout, cmd.Stderr = write, stderr
	d := &process{Process: rig.StartCommand(t, cmd), url: "http://127.0.0.1:" + port + "/pixel.gif"}
	write.Close()
	d.WaitListening(t, d.address())
	for i := range 3000 { // more than a pipe holds, and more than is read of it within 9 seconds
		d.hit(t, fmt.Sprint("key=", i, strings.Repeat("x", 100)))
	}
	go func() {
		for chunk := make([]byte, 4096); ; <-time.After(300 * time.Millisecond) {
			if _, err := read.Read(chunk); err != nil {
				return
			}
		}
	}()
	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 9*time.Second {
		t.Errorf("exit status %d after %v, want 1 after at most 9s", status, took)
	}
	want := "pixel-ping: 3000 hits of 3000 keys were not delivered; the log does not have them\n"
	if got := stderr.String(); !strings.HasSuffix(got, want) {
		t.Errorf("it says:\n%s\nwant it to end: %s", got, want)
	}
}

// startInBubble starts the parts of a daemon in a bubble, but no server: no time passes in a
// bubble in which somebody waits for connections. The end of ctx stops the daemon.
func startInBubble(t *testing.T, ctx context.Context, log io.Writer, values map[string]any) *daemon {
	t.Helper()
	stdout, stderr := logwriter.NewPair(log, log)
	d := &daemon{path: arguments.Path(settings(t, values)), stdout: stdout, stderr: stderr}
	if err := d.start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, listener := range d.listeners {
		listener.Close()
	}
	d.listeners = nil
	return d
}

// A stop whose flusher does not end says that hits are lost, in less than 9 seconds.
func TestLateStop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		d := startInBubble(t, ctx, io.Discard, map[string]any{"endpoint": nobody})
		defer d.close()
		hang := make(chan bool)
		defer close(hang)
		d.flusher.Alive = func(time.Duration) { <-hang }
		d.store.Record("a")
		cancel()
		began := time.Now()
		err := d.serve()
		if took := time.Since(began); err == nil || took != stopUntil ||
			err.Error() != "up to 1 hit were not delivered, and there was no time to log them all" {
			t.Errorf("after %v it says %v", took, err)
		}
	})
}

// An application that never answers keeps a stop for less than 9 seconds.
func TestStopWhileTheApplicationHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		log := rig.NewOutput()
		d := startInBubble(t, ctx, log, map[string]any{"endpoint": "http://application.example"})
		defer d.close()
		d.flusher.Endpoint.(*endpoint.Endpoint).Dial = rig.Pipes(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })
		d.store.Record("a")
		cancel()
		began := time.Now()
		err := d.serve()
		if took := time.Since(began); err == nil || took != deliveryUntil ||
			err.Error() != "1 hit of 1 key was not delivered (1 hit may have been saved); the log has them" {
			t.Errorf("after %v it says %v", took, err)
		}
		ending := "1:\ta\n--- cannot connect to endpoint : stopped before there was an answer\n"
		if got := log.String(); !strings.HasSuffix(got, ending) {
			t.Errorf("the log is:\n%s\nwant it to end:\n%s", got, ending)
		}
	})
}

// With an inherited socket, a connection on which nothing has come yet gets a second at a
// stop, as nobody is refused meanwhile.
func TestStopWithAnInheritedSocket(t *testing.T) {
	t.Parallel()
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
	d := startInheriting(t, map[string]any{"port": 9187}, socket)
	want := "host and port are ignored: the daemon serves the sockets that systemd listens on for it"
	if got := d.log.String(); !strings.Contains(got, want) {
		t.Errorf("it says:\n%s\nwant %s", got, want)
	}
	began := time.Now()
	silent, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d.hit(t, "") // so that the daemon has accepted the one before
	d.Signal(t, syscall.SIGTERM)
	silent.SetDeadline(time.Now().Add(rig.Deadline))
	silent.Read(make([]byte, 1))
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("the connection was closed after %v, want a second", took)
	}
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// systemd's watchdog is answered while the daemon idles, while a flush waits for an
// answer, and during a stop.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(socketFolder(t), "s")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	manager.SetDeadline(time.Now().Add(rig.Deadline))
	// expect waits for a number of answers, after a notification that begins with first.
	expect := func(first string, answers int) {
		t.Helper()
		buffer := make([]byte, 4096)
		for seen := first == ""; answers > 0; {
			n, err := manager.Read(buffer)
			if err != nil {
				t.Fatalf("%v, though %d answers are to come", err, answers)
			}
			got := string(buffer[:n])
			seen = seen || strings.HasPrefix(got, first)
			if seen && got == "WATCHDOG=1" {
				answers--
			}
		}
	}
	app, release := rig.NewEndpoint(t), make(chan bool)
	app.SetAnswer(func(conn net.Conn) {
		<-release
		rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")(conn)
	})
	cmd := command(settings(t, map[string]any{"endpoint": "http://" + app.Address}))
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000")
	d := startCommand(t, cmd)
	expect("READY=1", 3)
	d.hit(t, "key=a")
	d.Signal(t, syscall.SIGUSR2)
	app.Body(t)
	expect("", 5)
	d.Signal(t, syscall.SIGTERM)
	expect("STOPPING=1", 5)
	close(release)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d; the log is:\n%s", status, d.log)
	}
}

// Lines about a setting name the file while the daemon runs, too.
func TestLinesNameTheConfiguration(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	app.statuses <- 403
	path := settings(t, map[string]any{"endpoint": app.URL, "maxmemory": 0.02, "maxconnections": 1})
	d := startCommand(t, command(path))
	d.log.WaitLine(t, 0, "Serving")
	d.Signal(t, syscall.SIGUSR2) // Even the empty object is refused.
	app.expect(t, "json=%7B%7D")
	for range 2 {
		conn, err := net.Dial("tcp", d.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for i := range 3 {
		d.hit(t, fmt.Sprint("key=", i, strings.Repeat("x", 12000)))
	}
	d.Signal(t, syscall.SIGUSR2)
	for _, line := range []string{
		"maxconnections: connections closed for want of room: ",
		"the application refuses the request itself: ",
	} {
		d.log.WaitLine(t, 0, "pixel-ping: "+path+": "+line)
	}
	d.Signal(t, syscall.SIGTERM)
	d.Wait(t)
	line := regexp.MustCompile(`(?m)^pixel-ping: ` + regexp.QuoteMeta(path) + `: \d hits? .* \(maxmemory\)$`)
	if got := d.log.String(); !line.MatchString(got) {
		t.Errorf("it says:\n%.2000s\nwant a line about maxmemory", got)
	}
}

// A redirect says where it leads, without its secrets, after the original's line.
func TestRedirect(t *testing.T) {
	t.Parallel()
	app := rig.NewEndpoint(t)
	app.SetAnswer(rig.Answer("HTTP/1.1 308 Permanent Redirect\r\n" +
		"Location: https://user:hunter2@www.example.com/save?token=hunter2\r\n\r\n"))
	path := settings(t, map[string]any{"endpoint": "http://" + app.Address})
	d := startCommand(t, command(path))
	d.Signal(t, syscall.SIGUSR2)
	want := "--- flush failed with code:308\npixel-ping: " + path + ": the application redirects to " +
		"https://www.example.com/save, which is not followed; \"endpoint\" may have to be that\n"
	d.log.WaitLine(t, 0, "pixel-ping: "+path+": the application redirects")
	if got := d.log.String(); !strings.HasSuffix(got, want) {
		t.Errorf("it says:\n%s\nwant it to end:\n%s", got, want)
	}
}

// --health asks a daemon wherever it serves, and says in one line how it is.
func TestHealth(t *testing.T) {
	t.Parallel()
	health := func(t *testing.T, path string) (status int, said string) {
		t.Helper()
		output := rig.NewOutput()
		watch := rig.StartStopwatch(t)
		status = rig.Start(t, command("--health", path), output, output).Wait(t)
		// Within 3 seconds; on a busy machine the start of a test binary takes some as well.
		if took := watch.Took(); took > 6*time.Second {
			t.Errorf("--health takes %v", took)
		}
		return status, output.String()
	}
	folder := socketFolder(t)
	rig.WriteCertificate(t, folder)
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	socket, old := filepath.Join(folder, "s"), t.TempDir()
	rig.WriteSelfSigned(t, old, rig.Issue(t, "", nil).Key, x509.Certificate{NotAfter: time.Now().Add(-time.Hour)})
	for name, values := range map[string]map[string]any{
		"IPv4":              {},
		"IPv6":              {"host": "::1"},
		"a name":            {"host": "localhost"},
		"all interfaces":    {"host": nil},
		"all IPv4 ones":     {"host": "0.0.0.0"},
		"TLS":               {"sslcert": cert, "sslkey": key},
		"TLS, expired":      {"sslcert": filepath.Join(old, "cert.pem"), "sslkey": filepath.Join(old, "key.pem")},
		"TLS, everywhere":   {"sslcert": cert, "sslkey": key, "host": "::"},
		"a socket":          {"port": socket, "host": nil},
		"a socket with TLS": {"port": socket + "2", "host": nil, "sslcert": cert, "sslkey": key},
		"with metrics":      {"metrics": "127.0.0.1:0", "portt": 1},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "IPv6" && !rig.HasIPv6(t) {
				return
			}
			d := start(t, values)
			asked := maps.Clone(values)
			if values["port"] == nil {
				asked["port"] = regexp.MustCompile(`:(\d+)/`).FindStringSubmatch(d.url)[1]
			}
			path := settings(t, asked)
			if status, said := health(t, path); status != 0 || said != path+": the daemon serves the pixel\n" {
				t.Errorf("exit status %d, %q", status, said)
			}
			if name != "IPv4" && name != "TLS" && name != "a socket" {
				return // a daemon that hangs takes 2.5 seconds
			}
			d.Signal(t, syscall.SIGSTOP)
			defer d.Signal(t, syscall.SIGCONT)
			// Until it has really stopped, it may answer.
			if _, err := syscall.Wait4(d.Cmd.Process.Pid, nil, syscall.WUNTRACED, nil); err != nil {
				t.Fatal(err)
			}
			want := "pixel-ping: " + path + ": the daemon does not answer: no answer within 2.5s\n"
			if status, said := health(t, path); status != 1 || said != want {
				t.Errorf("while it is stopped: exit status %d, %q, want %q", status, said, want)
			}
		})
	}
	other := rig.Listen(t, func(conn net.Conn) {
		rig.ReadRequest(conn)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")
	})
	_, port, _ := net.SplitHostPort(other)
	const noPort = "port: the daemon's port is not in the configuration; want a number from 1 to 65535\n"
	for _, test := range []struct {
		values map[string]any
		want   string // the beginning of what is said
	}{
		{map[string]any{"port": port}, `the answer is not the pixel, but status 200 of type "text/html"` + "\n"},
		{map[string]any{"port": port, "sslcert": cert, "sslkey": key}, "the daemon does not answer: "},
		{map[string]any{"port": 1}, "the daemon does not answer: dial tcp 127.0.0.1:1: "},
		{map[string]any{"port": filepath.Join(folder, "none")}, "the daemon does not answer: dial unix "},
		{map[string]any{"port": 0}, noPort},
		{map[string]any{"port": nil}, noPort},
		{map[string]any{"interval": 0}, "interval: want a number of seconds above 0 (got 0)\n"},
	} {
		path := settings(t, test.values)
		status, said := health(t, path)
		want := "pixel-ping: " + path + ": " + test.want
		if status != 1 || strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, want) {
			t.Errorf("exit status %d, %q, want 1 and %q", status, said, want)
		}
	}
}
