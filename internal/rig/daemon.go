package rig

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Daemon is a running pixel-ping: ours, or the original.
type Daemon struct {
	*Process
	Address string // host:port on which it listens
}

// StartDaemon starts the program under test and waits until it serves. Settings
// that are not given are a free port of 127.0.0.1 and an interval of an hour.
func StartDaemon(t testing.TB, settings map[string]any) *Daemon {
	t.Helper()
	d := StartProgram(t, settings, Binary)
	d.Stdout.WaitLine(t, 0, "Serving")
	return d
}

// StartProgram starts another program with the settings of StartDaemon. The path
// of the configuration file becomes the last argument. StartProgram does not
// wait until the program serves.
func StartProgram(t testing.TB, settings map[string]any, command ...string) *Daemon {
	t.Helper()

	all := map[string]any{"host": "127.0.0.1", "port": FreePort(t), "interval": 3600}
	maps.Copy(all, settings)
	cmd := exec.Command(command[0], append(command[1:], WriteConfig(t, all))...)
	return &Daemon{Start(t, cmd, NewOutput(), NewOutput()), "127.0.0.1:" + all["port"].(string)}
}

// WriteConfig writes a configuration file into a new folder and returns its path.
func WriteConfig(t testing.TB, settings map[string]any) string {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Target returns the request target of the pixel with a key.
func Target(key string) string { return "/pixel.gif?key=" + url.QueryEscape(key) }

// Hit makes a hit for each key, over plain HTTP, and over a connection of its own.
func (d *Daemon) Hit(t testing.TB, keys ...string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Deadline}
	for _, key := range keys {
		answer, err := client.Get("http://" + d.Address + Target(key))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != 200 {
			t.Fatalf("the hit of %.50q is answered with status %d", key, answer.StatusCode)
		}
	}
}

// HitMany makes a hit for each key, as fast as the daemon takes them: it sends many over
// one connection without waiting for their answers.
func (d *Daemon) HitMany(t testing.TB, keys []string) {
	t.Helper()
	var all sync.WaitGroup
	for part := range slices.Chunk(keys, len(keys)/4+1) {
		all.Go(func() {
			conn, err := Dial(d.Address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			all.Go(func() {
				w := bufio.NewWriter(conn)
				for _, key := range part {
					fmt.Fprintf(w, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", Target(key))
				}
				w.Flush()
			})
			r := bufio.NewReader(conn)
			for i := range part {
				conn.SetReadDeadline(time.Now().Add(Deadline))
				if answer, err := ReadAnswer(r); err != nil || answer.StatusCode != 200 {
					t.Errorf("hit %d of %d: %v, %v", i, len(part), answer, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// Stop stops the daemon and fails the test unless everything was delivered.
func (d *Daemon) Stop(t testing.TB) {
	t.Helper()
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("the daemon's exit status is %d, want 0; its standard error is:\n%s", status, d.Stderr)
	}
}
