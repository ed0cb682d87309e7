//go:build unix

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

const (
	nobody    = "http://127.0.0.1:1" // an endpoint that refuses connections
	notThere  = "--- cannot connect to endpoint : connect ECONNREFUSED 127.0.0.1:1\n"
	recovered = " recovered from the journal"
)

// kill ends a daemon at once, as a crash does.
func kill(t *testing.T, d *process) {
	t.Helper()
	d.Signal(t, syscall.SIGKILL)
	if status := d.Wait(t); status != -1 {
		t.Fatalf("exit status %d, want none", status)
	}
}

// What a killed daemon has counted is delivered after the next start.
func TestJournalOutlivesKills(t *testing.T) {
	t.Parallel()
	journal := filepath.Join(t.TempDir(), "journal")
	values := map[string]any{"endpoint": nobody, "journal": journal}
	d := start(t, values)
	d.hit(t, "key=a", "key=b", "key=a")
	d.Signal(t, syscall.SIGUSR2)
	d.log.WaitLine(t, 0, "--- cannot connect")
	d.hit(t, "key=a")
	kill(t, d)

	d = start(t, values)
	d.log.WaitLine(t, 0, "pixel-ping: 4 hits of 2 keys"+recovered)
	d.log.WaitLine(t, 0, "--- cannot connect")
	d.hit(t, "key=c")
	kill(t, d)

	app := newApplication(t)
	values["endpoint"] = app.URL
	d = start(t, values)
	var bodies []string // of each file, as it was when the application was down
	for range 3 {
		select {
		case body := <-app.flushes:
			bodies = append(bodies, body)
		case <-time.After(rig.Deadline):
			t.Fatalf("the application received only %q", bodies)
		}
	}
	slices.Sort(bodies)
	want := []string{"json=%7B%22a%22%3A1%7D", "json=%7B%22a%22%3A2%2C%22b%22%3A1%7D", "json=%7B%22c%22%3A1%7D"}
	if !slices.Equal(bodies, want) {
		t.Errorf("the application received %q, want %q", bodies, want)
	}
	d.Signal(t, syscall.SIGUSR2)
	app.expect(t, "json=%7B%7D") // The others are done with.
	kill(t, d)

	d = start(t, values)
	d.hit(t, "key=d")
	d.Signal(t, syscall.SIGTERM)
	app.expect(t, "json=%7B%22d%22%3A1%7D")
	if status := d.Wait(t); status != 0 || strings.Contains(d.log.String(), "recovered") {
		t.Errorf("exit status %d, and it says:\n%s", status, d.log)
	}
}

// What a stop leaves undelivered stays in the journal, and nothing is lost. With
// discard it is dropped.
func TestStopWithAJournal(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		discard bool
		ending  string // of what the stopped daemon says
		next    string // what the next one has to say
	}{
		{false, notThere + "pixel-ping: 3 hits of 2 keys were not delivered; the journal has them\n",
			"pixel-ping: 3 hits of 2 keys" + recovered},
		{true, "1:\tb\n" + notThere, ""},
	} {
		values := map[string]any{"endpoint": nobody, "discard": test.discard, "journal": t.TempDir()}
		d := start(t, values)
		d.hit(t, "key=a", "key=b", "key=a")
		d.Signal(t, syscall.SIGTERM)
		if status := d.Wait(t); status != 0 {
			t.Errorf("exit status %d, want 0", status)
		}
		if got := d.log.String(); !strings.HasSuffix(got, test.ending) {
			t.Errorf("it says:\n%s\nwant it to end:\n%s", got, test.ending)
		}
		d = start(t, values)
		if test.next != "" {
			d.log.WaitLine(t, 0, test.next)
		}
		d.Signal(t, syscall.SIGTERM)
		d.Wait(t)
		if text := d.log.String(); test.next == "" && strings.Contains(text, "recovered") {
			t.Errorf("dropped hits are back:\n%s", text)
		}
	}
}

// Without an endpoint, the totals go on growing from one process to the next.
func TestTotalsInAJournal(t *testing.T) {
	t.Parallel()
	values := map[string]any{"journal": t.TempDir()}
	d := start(t, values)
	d.hit(t, "key=a", "key=b")
	d.Signal(t, syscall.SIGUSR2)
	d.log.WaitLine(t, 0, "1:\tb")
	d.hit(t, "key=a")
	kill(t, d)

	d = start(t, values)
	d.log.WaitLine(t, 0, "pixel-ping: 3 hits of 2 keys"+recovered)
	d.hit(t, "key=a")
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	got := d.log.String()
	if !strings.HasSuffix(got, recovered+"\n3:\ta\n1:\tb\n") || strings.Contains(got, "not delivered") {
		t.Errorf("it says:\n%s", got)
	}

	d = start(t, values)
	d.log.WaitLine(t, 0, "pixel-ping: 4 hits of 2 keys"+recovered)
}

// A directory that cannot be used is refused at the start.
func TestJournalThatCanNotBeUsed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used := filepath.Join(folder, "used")
	start(t, map[string]any{"journal": used})
	for path, want := range map[string]string{
		used:                      "the directory is in use by another pixel-ping",
		file:                      "not a directory",
		filepath.Join(file, "no"): "not a directory",
	} {
		if got := refused(t, 1, map[string]any{"journal": path}); got != "journal "+path+": "+want {
			t.Errorf("said %q, want %q", got, want)
		}
	}
}
