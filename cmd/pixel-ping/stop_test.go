//go:build unix

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/rig"
)

func TestForcedFlush(t *testing.T) {
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL + "/save"})
	d.hit(t, "key=one", "key=two&key=2", "key=two&key=2", "key=%0Athree", "")
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%22%5Cnthree%22%3A1%2C%22one%22%3A1%2C%22two%2C2%22%3A2%7D")
	d.log.WaitLine(t, 0, "--- flushed ---")
	want := "Flushing hits to " + app.URL + "/save\n" +
		"Serving the pixel at " + d.url + "\n" +
		"Got SIGUSR2. Forcing a flush:\n" +
		"1:\t\\u000athree\n1:\tone\n2:\ttwo,2\n--- flushed ---\n"
	if got := d.log.String(); got != want {
		t.Errorf("the log is:\n%s\nwant:\n%s", got, want)
	}
}

func TestFailedFlush(t *testing.T) {
	app := newApplication(t)
	app.statuses <- 500
	d := start(t, map[string]any{"endpoint": app.URL})
	d.hit(t, "key=a")
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%22a%22%3A1%7D")
	d.log.WaitLine(t, 0, "--- flush failed with code:500")
	d.hit(t, "key=a")
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%22a%22%3A2%7D")
}

func TestStopDelivers(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			app := newApplication(t)
			d := start(t, map[string]any{"endpoint": app.URL})
			d.hit(t, "key=a", "key=b")
			d.Signal(t, s)
			if status := d.Wait(t); status != 0 {
				t.Errorf("exit status %d, want 0", status)
			}
			app.expect(t, "json=%7B%22a%22%3A1%2C%22b%22%3A1%7D")
		})
	}
}

func TestStopWithNothingHeld(t *testing.T) {
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL})
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if n := len(app.flushes); n != 0 {
		t.Errorf("%d flushes, want none", n)
	}
}

func TestStopThatCanNotDeliver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		values map[string]any
		status int
		ending string
	}{
		"failed": {map[string]any{"endpoint": "http://127.0.0.1:1"}, 1,
			"2:\ta\n1:\tb\n--- cannot connect to endpoint : connect ECONNREFUSED 127.0.0.1:1\n" +
				"pixel-ping: 3 hits of 2 keys were not delivered; the log has them\n"},
		"discard": {map[string]any{"endpoint": "http://127.0.0.1:1", "discard": true}, 0,
			"2:\ta\n1:\tb\n--- cannot connect to endpoint : connect ECONNREFUSED 127.0.0.1:1\n"},
		"no endpoint": {nil, 0, "/pixel.gif\n2:\ta\n1:\tb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			d := start(t, test.values)
			d.hit(t, "key=a", "key=b", "key=a")
			d.Signal(t, syscall.SIGTERM)
			if status := d.Wait(t); status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			if got := d.log.String(); !strings.HasSuffix(got, test.ending) {
				t.Errorf("the log is:\n%s\nwant it to end:\n%s", got, test.ending)
			}
		})
	}
}

// hanging returns the address of an application that never answers, and a
// channel that receives a value for each connection that has sent something.
func hanging(t *testing.T) (string, <-chan bool) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	connections := make(chan bool, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Read(make([]byte, 1))
				connections <- true
				io.Copy(io.Discard, conn)
			}()
		}
	}()
	return "http://" + listener.Addr().String(), connections
}

// A flush hangs; a second signal ends the stop at once, and what the daemon
// holds is named: that of the flush and what came since.
func TestSecondSignal(t *testing.T) {
	address, connections := hanging(t)
	d := start(t, map[string]any{"endpoint": address})
	d.hit(t, "key=a", "key=b")
	d.Signal(t, syscall.SIGUSR2)
	<-connections
	d.hit(t, "key=b")
	d.Signal(t, syscall.SIGTERM)
	waitForStop(t, d)
	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 3*time.Second {
		t.Errorf("exit status %d after %v, want 1 after at most 3s", status, took)
	}
	ending := "--- cannot connect to endpoint : stopped by a second signal\n" +
		"Not delivered:\n1:\ta\n2:\tb\n" +
		"pixel-ping: 3 hits of 2 keys were not delivered (2 hits may have been saved); the log has them\n"
	if got := d.log.String(); !strings.HasSuffix(got, ending) {
		t.Errorf("the log is:\n%s\nwant it to end:\n%s", got, ending)
	}
}

// The parts of a stop end in this order, and all end within 9 seconds. After the last part,
// run waits for the last line, on stdout and stderr at the same time.
func TestStopBudget(t *testing.T) {
	ends := []time.Duration{requestsUntil, deliveryUntil, logUntil, stopUntil, 9*time.Second - logwriter.Grace}
	if !slices.IsSorted(ends) {
		t.Errorf("the parts of a stop end after %v", ends)
	}
}

// waitForStop waits until the daemon accepts no more connections.
func waitForStop(t *testing.T, d *process) {
	t.Helper()
	for limit := time.Now().Add(rig.Deadline); time.Now().Before(limit); {
		conn, err := net.Dial("tcp", d.address())
		if err != nil {
			return
		}
		conn.Close()
	}
	t.Fatal("the daemon still accepts connections")
}

// Every hit that was answered is delivered, however many are under way when the
// daemon is stopped.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL, "interval": 0.05})
	var answered atomic.Int64
	var clients sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	for range 8 {
		clients.Go(func() {
			for {
				answer, err := client.Get(d.url + "?key=a")
				if err != nil {
					return
				}
				answer.Body.Close()
				if answered.Add(1) == 2000 {
					d.Signal(t, syscall.SIGTERM)
				}
			}
		})
	}
	var delivered, n int64
	clients.Wait()
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	app.Close()
	close(app.flushes)
	for flush := range app.flushes {
		if _, err := fmt.Sscanf(flush, "json=%%7B%%22a%%22%%3A%d%%7D", &n); err == nil {
			delivered += n
		}
	}
	if delivered < answered.Load() || delivered > answered.Load()+8 {
		t.Errorf("%d hits were answered and %d delivered", answered.Load(), delivered)
	}
}

// A client that is slow to send its request does not keep the daemon.
func TestStopWithASlowClient(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d := start(t, map[string]any{"endpoint": app.URL})
	d.hit(t, "key=a")
	conn, err := net.Dial("tcp", d.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /pixel.gif?key=b HTTP/1.1\r\n")
	// Over another connection: the daemon has accepted the one before by then.
	exchange(t, d, "GET /pixel.gif?key=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 1)
	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	app.expect(t, "json=%7B%22a%22%3A2%7D")
	if status, took := d.Wait(t), watch.Took(); status != 0 || took > 4*time.Second {
		t.Errorf("exit status %d after %v, want 0 after at most 4s", status, took)
	}
}

// startPiped starts a daemon whose log is a pipe, which is read as far as the
// announcement and then left to the test.
func startPiped(t *testing.T, values map[string]any) (*process, *os.File) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { read.Close() })
	cmd := command(settings(t, values))
	// No Output, which would read on.
	cmd.Stdout, cmd.Stderr = write, write
	d := &process{Process: rig.StartCommand(t, cmd)}
	write.Close()
	read.SetReadDeadline(time.Now().Add(rig.Deadline))
	for r := bufio.NewReader(read); d.url == ""; {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, d.url, _ = strings.Cut(strings.TrimSpace(line), "Serving the pixel at ")
	}
	return d, read
}

// A log whose reader has gone does not end the daemon, nor lose a hit.
func TestLogThatNobodyReads(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d, log := startPiped(t, map[string]any{"endpoint": app.URL})
	log.Close()
	for range 2 {
		d.hit(t, "key=a")
		d.Signal(t, syscall.SIGUSR2)
		app.expect(t, "json=%7B%22a%22%3A1%7D")
	}
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// A log that is not read any more, though somebody holds it open, does not keep
// the daemon from ending when it is told to.
func TestStopWhileTheLogHangs(t *testing.T) {
	t.Parallel()
	d, _ := startPiped(t, map[string]any{"endpoint": "http://127.0.0.1:1"})
	for i := range 10 {
		d.hit(t, fmt.Sprintf("key=%d%s", i, strings.Repeat("x", 12000)))
	}
	d.Signal(t, syscall.SIGTERM)
	waitForStop(t, d)
	d.Signal(t, syscall.SIGTERM)
	watch := rig.StartStopwatch(t)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 4*time.Second {
		t.Errorf("exit status %d after %v, want 1 after at most 4s", status, took)
	}
}

// After a second signal, a reader that is slow gets what it takes within 2 seconds.
func TestSecondSignalLimitsTheLog(t *testing.T) {
	t.Parallel()
	d, log := startPiped(t, map[string]any{"endpoint": "http://127.0.0.1:1"})
	for i := range 20 {
		d.hit(t, fmt.Sprintf("key=%d%s", i, strings.Repeat("x", 12000)))
	}
	go func() {
		for chunk := make([]byte, 4096); ; <-time.After(300 * time.Millisecond) {
			if _, err := log.Read(chunk); err != nil {
				return
			}
		}
	}()
	d.Signal(t, syscall.SIGTERM)
	waitForStop(t, d)
	d.Signal(t, syscall.SIGTERM)
	watch := rig.StartStopwatch(t)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 4*time.Second {
		t.Errorf("exit status %d after %v, want 1 after at most 4s", status, took)
	}
}

// With stdout and stderr in one pipe, a reader of 1 kB a second still gets the last line of a
// stop, and the stop ends within 9 seconds.
func TestLastLineForASlowReader(t *testing.T) {
	t.Parallel()
	d, log := startPiped(t, map[string]any{"endpoint": nobody})
	for i := range 1000 { // more than a pipe holds
		d.hit(t, fmt.Sprint("key=", i, strings.Repeat("x", 100)))
	}
	var all strings.Builder
	stopped, read := make(chan bool), make(chan bool)
	go func() {
		defer close(read)
		for chunk := make([]byte, 4096); ; {
			n, err := log.Read(chunk)
			all.Write(chunk[:n])
			if err != nil {
				return
			}
			select {
			case <-stopped:
			case <-time.After(4 * time.Second):
			}
		}
	}()
	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	if status, took := d.Wait(t), watch.Took(); status != 1 || took > 9*time.Second {
		t.Errorf("exit status %d after %v, want 1 after at most 9s", status, took)
	}
	close(stopped)
	<-read
	want := "\npixel-ping: 1000 hits of 1000 keys were not delivered; the log does not have them\n"
	if !strings.HasSuffix(all.String(), want) {
		t.Errorf("the log ends %q", all.String()[all.Len()-200:])
	}
}

// A log that hangs keeps no hit from being delivered, neither at a flush nor at
// the stop.
func TestDeliveryWhileTheLogHangs(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d, _ := startPiped(t, map[string]any{"endpoint": app.URL})
	long := strings.Repeat("x", 12000)
	var first []string
	for i := range 6 {
		first = append(first, fmt.Sprintf("key=%d%s", i, long))
	}
	for _, queries := range [][]string{first, {"key=b"}} {
		d.hit(t, queries...)
		d.Signal(t, syscall.SIGUSR2)
		if got := <-app.flushes; strings.Count(got, "%3A1") != len(queries) {
			t.Errorf("received %.100s, want %d keys", got, len(queries))
		}
	}
	d.hit(t, "key=c")
	d.Signal(t, syscall.SIGTERM)
	app.expect(t, "json=%7B%22c%22%3A1%7D")
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
}

// A terminal that closes hangs up twice.
func TestTwoHangUps(t *testing.T) {
	app, release := rig.NewEndpoint(t), make(chan bool)
	app.SetAnswer(func(conn net.Conn) {
		<-release
		rig.Answer("HTTP/1.1 204 No Content\r\n\r\n")(conn)
	})
	d := start(t, map[string]any{"endpoint": "http://" + app.Address})
	d.hit(t, "key=a")
	d.Signal(t, syscall.SIGHUP)
	if got := app.Body(t); got != "json=%7B%22a%22%3A1%7D" {
		t.Errorf("received %s", got)
	}
	d.Signal(t, syscall.SIGHUP)
	// With a signal that nobody has taken yet, the answer may come first.
	close(release)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0; the log is:\n%s", status, d.log)
	}
}

// nohup is there for processes to outlive their terminal.
func TestHangUpUnderNohup(t *testing.T) {
	daemon := command(settings(t, nil))
	shell := exec.Command("sh", append([]string{"-c", `trap "" HUP; exec "$@"`, "sh"}, daemon.Args...)...)
	shell.Env = daemon.Env
	d := startCommand(t, shell)
	d.Signal(t, syscall.SIGHUP)
	d.Signal(t, syscall.SIGUSR2)
	d.log.WaitLine(t, 0, "Got SIGUSR2")
	d.hit(t, "key=a")
}

// The last line says whether the log has what was not delivered. It does not on a
// full disk, on the null device, which Go's runtime also opens in place of a closed
// stdout, and in a pipe whose reader has gone.
func TestStopSaysWhetherTheLogHasThem(t *testing.T) {
	t.Parallel()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	read.Close()
	for _, test := range []struct{ redirection, ending string }{
		{">log", "; the log has them"},
		{">/dev/full", "; the log does not have them"},
		{">/dev/null", "; the log does not have them"},
		{">&-", "; the log does not have them"},
		{">&3", "; the log does not have them"}, // the pipe
	} {
		t.Run(test.redirection, func(t *testing.T) {
			port := rig.FreePort(t)
			daemon := command(settings(t, map[string]any{"endpoint": "http://127.0.0.1:1", "port": port}))
			shell := exec.Command("sh", append([]string{"-c", `exec "$@" ` + test.redirection, "sh"}, daemon.Args...)...)
			shell.Env, shell.Dir, shell.ExtraFiles = daemon.Env, t.TempDir(), []*os.File{write}
			stderr := rig.NewOutput()
			d := &process{Process: rig.Start(t, shell, rig.NewOutput(), stderr)}
			d.url = "http://127.0.0.1:" + port + "/pixel.gif"
			d.WaitListening(t, d.address())
			d.hit(t, "key=a")
			d.Signal(t, syscall.SIGTERM)
			d.Wait(t)
			want := "pixel-ping: 1 hit of 1 key was not delivered" + test.ending + "\n"
			if !strings.HasSuffix(stderr.String(), want) {
				t.Errorf("stderr ends:\n%s\nwant %s", stderr, want)
			}
		})
	}
}
