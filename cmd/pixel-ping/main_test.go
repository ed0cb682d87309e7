package main

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/logwriter"
	"pixel-ping/internal/rig"
	"pixel-ping/internal/version"
)

// The tests run the real program: the test binary starts itself again, and is
// the daemon then.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_PIXEL_PING") != "" {
		main()
	}
	// The daemons inherit what this process ignores. Under nohup, they would ignore
	// SIGHUP, unless this process handles it.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	// Without the second that the race detector takes for its report at the end.
	cmd.Env = append(os.Environ(), "RUN_PIXEL_PING=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// settings writes a configuration, with a free port and a long interval unless
// it has others, and returns its path.
func settings(t *testing.T, values map[string]any) string {
	t.Helper()
	all := map[string]any{"host": "127.0.0.1", "port": 0, "interval": 3600}
	maps.Copy(all, values)
	return rig.WriteConfig(t, all)
}

// process is a daemon that serves.
type process struct {
	*rig.Process
	url string      // of the pixel
	log *rig.Output // stdout and stderr
}

// start starts a daemon and waits until it has announced itself.
func start(t *testing.T, values map[string]any) *process {
	t.Helper()
	return startCommand(t, command(settings(t, values)))
}

func startCommand(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	log := rig.NewOutput()
	d := &process{Process: rig.Start(t, cmd, log, log), log: log}
	line := log.WaitLine(t, 0, "Serving the pixel at ")
	d.url = strings.TrimPrefix(line, "Serving the pixel at ")
	return d
}

// address returns the host and port of the pixel.
func (d *process) address() string {
	return strings.TrimSuffix(strings.TrimPrefix(d.url, "http://"), "/pixel.gif")
}

// hit makes one hit for each query, and fails the test unless all are answered
// with the pixel.
func (d *process) hit(t *testing.T, queries ...string) {
	t.Helper()
	for _, query := range queries {
		// Not every machine has a hosts file that knows localhost.
		answer, err := http.Get(strings.Replace(d.url, "//localhost:", "//127.0.0.1:", 1) + "?" + query)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 200 || len(body) != 35 || err != nil {
			t.Fatalf("%s: status %d, %d bytes, error %v", query, answer.StatusCode, len(body), err)
		}
	}
}

// application is an endpoint. It sends the form of each flush to flushes, and
// answers with the next of the statuses, or 204 when there is none.
type application struct {
	*httptest.Server
	flushes  chan string
	statuses chan int
}

func newApplication(t *testing.T) *application {
	a := &application{flushes: make(chan string, 10_000), statuses: make(chan int, 100)}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.flushes <- string(body)
		select {
		case status := <-a.statuses:
			w.WriteHeader(status)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *application) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-a.flushes:
		if got != want {
			t.Errorf("the application received %s, want %s", got, want)
		}
	case <-time.After(rig.Deadline):
		t.Fatalf("the application received nothing, want %s", want)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	const usage = "Usage: pixel-ping path/to/config.json\n" + // the original's
		"       pixel-ping --check path/to/config.json\n" +
		"       pixel-ping --health path/to/config.json\n"
	directory := t.TempDir()
	text := func(text string) string {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(directory, "missing.json")
	broken := text("{\n\"port\": }")
	misspelt := text(`{"port": 1, "intervall": 60}`)
	twice := text(`{"port": 1, "port": 2}`)
	// The program starts in this folder.
	if err := os.WriteFile(filepath.Join(directory, "-file"), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args           []string
		status         int
		stdout, stderr string
	}{
		{nil, 0, "", usage},
		{[]string{""}, 0, "", usage},
		{[]string{"-h"}, 0, "", usage},
		{[]string{"-help"}, 0, "", usage},
		{[]string{"--help", "x"}, 0, "", usage},
		{[]string{"-v"}, 0, "Pixel Ping version " + version.Number + "\n", ""},
		{[]string{"-version"}, 0, "Pixel Ping version " + version.Number + "\n", ""},
		{[]string{"--version"}, 0, "Pixel Ping version " + version.Number + "\n", ""},
		{[]string{"--check", "--help"}, 0, "", usage},
		{[]string{"--health", "-h"}, 0, "", usage},
		{[]string{missing}, 78, "", "pixel-ping: " + missing + ": no such file or directory\n"},
		{[]string{directory}, 78, "", "pixel-ping: " + directory + ": is a directory\n"},
		{[]string{"-x"}, 1, "", "pixel-ping: -x is not a flag, and there is no such file\n" + usage},
		{[]string{"--foo\n", "x"}, 1, "", `pixel-ping: --foo\n is not a flag, and there is no such file` + "\n" + usage},
		{[]string{"--check"}, 1, "", "pixel-ping: --check needs the path of a configuration\n" + usage},
		{[]string{"--check", ""}, 1, "", "pixel-ping: --check needs the path of a configuration\n" + usage},
		{[]string{"--health"}, 1, "", "pixel-ping: --health needs the path of a configuration\n" + usage},
		{[]string{"--check", missing, "x"}, 1, "", `pixel-ping: arguments after the configuration are ignored: ["x"]` +
			"\n" + rootsCheck(missing) + "pixel-ping: " + missing + ": no such file or directory\n"},
		{[]string{"--health", missing}, 1, "", "pixel-ping: " + missing + ": no such file or directory\n"},
		{[]string{"-file"}, 78, "", "pixel-ping: -file: want a JSON object (got an array)\n"},
		{[]string{missing, "-v", "a b"}, 78, "", `pixel-ping: arguments after the configuration are ignored: ["-v" "a b"]` +
			"\npixel-ping: " + missing + ": no such file or directory\n"},
		{[]string{twice}, 78, "",
			"pixel-ping: " + twice + ": setting \"port\" is there more than once; the last value counts\n" +
				"pixel-ping: " + twice + ": interval: missing; want a number of seconds above 0\n"},
		{[]string{broken}, 78, "",
			"pixel-ping: " + broken + ": line 2, column 9: a value is missing before this\n"},
		{[]string{misspelt}, 78, "", "pixel-ping: " + misspelt + ": unknown setting \"intervall\" is ignored\n" +
			"pixel-ping: " + misspelt + ": interval: missing; want a number of seconds above 0\n"},
	} {
		cmd := command(test.args...)
		cmd.Dir = directory
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run()
		status := cmd.ProcessState.ExitCode()
		if status != test.status || stdout.String() != test.stdout || stderr.String() != test.stderr {
			t.Errorf("%q: status %d, stdout %q, stderr %q; want %d, %q, %q", test.args,
				status, stdout.String(), stderr.String(), test.status, test.stdout, test.stderr)
		}
	}
}

// rootsCheck returns the line that --check adds if root runs it, as root may run this
// test.
func rootsCheck(path string) string {
	if os.Geteuid() != 0 {
		return ""
	}
	return "pixel-ping: root may read what the service may not; this sees what the service sees: " +
		"runuser -u pixel-ping -- pixel-ping --check " + path + "\n"
}

// refused starts a daemon that is not to start, and returns what it said: one line
// about the configuration, without the parts that name the program and the file. The
// daemon has to end with status.
func refused(t *testing.T, status int, values map[string]any) string {
	t.Helper()
	log, path := rig.NewOutput(), settings(t, values)
	if got := rig.Start(t, command(path), log, log).Wait(t); got != status {
		t.Errorf("exit status %d, want %d", got, status)
	}
	line, named := strings.CutPrefix(log.String(), "pixel-ping: "+path+": ")
	if line, ended := strings.CutSuffix(line, "\n"); named && ended && !strings.Contains(line, "\n") {
		return line
	}
	t.Fatalf("said %q, want one line that names %s", log, path)
	return ""
}

func TestStartThatFails(t *testing.T) {
	t.Parallel()
	taken := start(t, nil)
	port := strings.TrimPrefix(taken.address(), "127.0.0.1:")
	for name, test := range map[string]struct {
		status int
		values map[string]any
		want   string
	}{
		"port taken": {1, map[string]any{"port": port},
			"host, port: cannot listen on 127.0.0.1:" + port + ": address already in use"},
		"host elsewhere": {1, map[string]any{"host": "192.0.2.1"},
			"host, port: cannot listen on 192.0.2.1:0: cannot assign requested address"},
		"no port": {78, map[string]any{"port": nil},
			"port: missing; want a number from 0 to 65535, or the path of a socket, with a slash"},
		"metrics taken": {1, map[string]any{"metrics": "127.0.0.1:" + port},
			"metrics: cannot listen on 127.0.0.1:" + port + ": address already in use"},
		"no interval": {78, map[string]any{"interval": nil}, "interval: missing; want a number of seconds above 0"},
		"no certificate": {78, map[string]any{"sslkey": "no.pem", "sslcert": "no.pem"},
			"sslkey no.pem: no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := refused(t, test.status, test.values); got != test.want {
				t.Errorf("said %q, want %q", got, test.want)
			}
		})
	}
	t.Run("host unknown", func(t *testing.T) {
		got := refused(t, 1, map[string]any{"host": "nosuch.invalid"})
		if !strings.HasPrefix(got, `host: "nosuch.invalid" is not known (`) {
			t.Errorf("said %q", got)
		}
	})
}

func TestAnnouncement(t *testing.T) {
	d := start(t, map[string]any{"host": "", "endpoint": `http:\\user:hunter2@127.0.0.1:1\save?token=hunter2`})
	scanner := bufio.NewScanner(strings.NewReader(d.log.String()))
	scanner.Scan()
	if got := scanner.Text(); got != `Flushing hits to http:\\user:xxxxx@127.0.0.1:1\save?token=xxxxx` {
		t.Errorf("the first line is %q", got)
	}
	scanner.Scan()
	if got := scanner.Text(); !strings.HasPrefix(got, "Serving the pixel at http://localhost:") {
		t.Errorf("the second line is %q", got)
	}
	d.hit(t, "key=a")

	config := settings(t, nil)
	got := startCommand(t, command(config)).log.WaitLine(t, 0, "No endpoint")
	if want := `No endpoint set. Hits won't be flushed, add "endpoint" to ` + config + "."; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
}

func TestInterval(t *testing.T) {
	app := newApplication(t)
	start(t, map[string]any{"interval": "0.01", "endpoint": app.URL, "secret": 7})
	for range 3 {
		app.expect(t, "json=%7B%7D&secret=7")
	}
}

// stoppedDuringTheStart runs a daemon, calls stop while that looks up its host, which takes as
// long as the test, and fails the test unless the daemon ends all the same.
func stoppedDuringTheStart(t *testing.T, ctx context.Context, stop func()) {
	t.Helper()
	before := net.DefaultResolver
	asked, ended, status := make(chan bool, 100), make(chan bool), make(chan int, 1)
	t.Cleanup(func() { close(ended); net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		asked <- true
		<-ended
		return nil, io.EOF
	}}
	config := settings(t, map[string]any{"host": "pixels.example.com"})
	go func() { status <- run(ctx, []string{config}, io.Discard, io.Discard) }()
	<-asked
	stop()
	select {
	case got := <-status:
		if got != 0 {
			t.Errorf("exit status %d, want 0", got)
		}
	case <-time.After(rig.Deadline):
		t.Error("the daemon does not end")
	}
}

// A daemon that is still looking up its host can be stopped.
func TestStopDuringTheStart(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stoppedDuringTheStart(t, ctx, cancel)
}

// slow is a log whose reader takes a moment for each line.
type slow struct{ strings.Builder }

func (s *slow) Write(p []byte) (int, error) {
	<-time.After(logwriter.Grace)
	return s.Builder.Write(p)
}

// The last line is written, though its reader is slow.
func TestLastLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stderr slow
		run(t.Context(), []string{"missing.json"}, io.Discard, &stderr)
		if got := stderr.String(); got != "pixel-ping: missing.json: no such file or directory\n" {
			t.Errorf("the log is %q", got)
		}
	})
}

// run ends with its context as with a signal: what is held is delivered.
func TestEndOfTheContext(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	app := newApplication(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, stderr := rig.NewOutput(), rig.NewOutput()
	status := make(chan int, 1)
	config := settings(t, map[string]any{"endpoint": app.URL, "maxmemory": 50, "maxconnections": 10})
	before := debug.SetMemoryLimit(-1)
	go func() { status <- run(ctx, []string{config}, stdout, stderr) }()
	d := &process{url: strings.TrimPrefix(stdout.WaitLine(t, 0, "Serving"), "Serving the pixel at ")}
	d.hit(t, "key=a")
	if debug.SetMemoryLimit(-1) == before {
		t.Error("the collector has no limit")
	}
	cancel()
	app.expect(t, "json=%7B%22a%22%3A1%7D")
	if got := <-status; got != 0 {
		t.Errorf("exit status %d, want 0; it says:\n%s", got, stderr)
	}
}
