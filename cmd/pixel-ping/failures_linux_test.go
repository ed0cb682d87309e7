package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"pixel-ping/internal/rig"
)

// keysOverFull is more than twice as many keys of 16 kB as a new journal has room for when
// its disk becomes full.
const keysOverFull = 300

// startFull starts a daemon whose journal has a disk that becomes full, and makes a hit
// for each of keysOverFull keys.
func startFull(t *testing.T, endpoint string) *process {
	dir := t.TempDir()
	d := start(t, map[string]any{"endpoint": endpoint, "journal": dir})
	grown := func() bool { // The file grows ahead of its use, and the next growth is to fail.
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, name := range names {
			if info, err := os.Stat(name); err != nil || info.Size() < 2<<20 {
				return false
			}
		}
		return len(names) > 0
	}
	for limit := time.Now().Add(rig.Deadline); !grown(); <-time.After(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("the file of the journal does not grow")
		}
	}
	limit := syscall.Rlimit{Cur: 1, Max: 1}
	if _, _, err := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(d.Cmd.Process.Pid), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0); err != 0 {
		t.Fatal(err)
	}
	for i := range keysOverFull {
		d.hit(t, fmt.Sprint("key=", i, strings.Repeat("x", 16<<10)))
	}
	return d
}

// Hits for which the journal has no room are said to be lost if they are not
// delivered.
func TestStopWithAFullJournal(t *testing.T) {
	t.Parallel()
	d := startFull(t, nobody)
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 1 {
		t.Errorf("exit status %d, want 1", status)
	}
	var said []string
	for line := range strings.Lines(d.log.String()) {
		if strings.HasPrefix(line, "pixel-ping: ") {
			said = append(said, line)
		}
	}
	if len(said) < 3 {
		t.Fatalf("it says %q", said)
	}
	said = said[len(said)-3:]
	var kept, keptKeys, lost, lostKeys int
	const undelivered = "pixel-ping: %d hits of %d keys were not delivered; the "
	_, noKept := fmt.Sscanf(said[1], undelivered+"journal has them\n", &kept, &keptKeys)
	_, noLost := fmt.Sscanf(said[2], undelivered+"log has them\n", &lost, &lostKeys)
	if !strings.Contains(said[0], "file too large; ") || noKept != nil || noLost != nil ||
		lost < keysOverFull/10 || kept+lost != keysOverFull || keptKeys != kept || lostKeys != lost {
		t.Errorf("it says at last %q", said)
	}
}

// A stop delivers what is in memory only, too.
func TestFullJournalIsDelivered(t *testing.T) {
	t.Parallel()
	app := newApplication(t)
	d := startFull(t, app.URL)
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	app.Close()
	close(app.flushes)
	keys := 0
	for flush := range app.flushes {
		keys += strings.Count(flush, "%3A1")
	}
	if keys != keysOverFull {
		t.Errorf("%d keys are delivered, want %d", keys, keysOverFull)
	}
}

// A start and a check warn of settings that need more memory than there is.
func TestMoreThanTheMachineHas(t *testing.T) {
	t.Parallel()
	const much = 1 << 30 // megabytes, or connections
	values := map[string]any{"port": rig.FreePort(t), "maxmemory": much, "maxconnections": much}
	output := rig.NewOutput()
	if status := rig.Start(t, command("--check", settings(t, values)), output, output).Wait(t); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	delete(values, "maxconnections") // or a start would also warn that there are no files for them
	for what, said := range map[string]string{
		"a check of maxmemory":      output.String(),
		"a check of maxconnections": output.String(),
		"a start with maxmemory":    start(t, values).log.String(),
	} {
		setting := what[strings.LastIndex(what, " ")+1:]
		if !regexp.MustCompile(`\.json: ` + setting + `: .* but this process may use \d+ MB in all`).MatchString(said) {
			t.Errorf("%s does not warn; it says:\n%s", what, said)
		}
	}
}
