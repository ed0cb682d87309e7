//go:build unix

package journal

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The test binary is started again by tests of what a process leaves that ends
// at once.
func TestMain(m *testing.M) {
	dir := os.Getenv("JOURNAL_TEST_DIR")
	switch os.Getenv("JOURNAL_TEST_CHILD") {
	case "":
		os.Exit(m.Run())
	case "life":
		steps, _ := strconv.Atoi(os.Getenv("JOURNAL_TEST_STEPS"))
		live(dir, int64(steps))
	case "count":
		count(dir)
	case "limit":
		fillUp(dir)
	}
	os.Exit(0)
}

// child returns the command for a process that does what TestMain calls role.
func child(role, dir string, env ...string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), append(env, "JOURNAL_TEST_CHILD="+role, "JOURNAL_TEST_DIR="+dir)...)
	c.Stderr = os.Stderr
	return c
}

// A ledger is what the outside world knows: what was counted, and what an
// application that looks at ids has saved.
type ledger struct {
	Counted map[string]int64            // hits that were acknowledged
	Saved   map[string]map[string]int64 // by id
}

func (l *ledger) store(dir string) {
	text, err := json.Marshal(l)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ledger.new"), text, 0o600)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, "ledger.new"), filepath.Join(dir, "ledger"))
	}
	if err != nil {
		panic(err)
	}
}

func readLedger(t testing.TB, dir string) ledger {
	t.Helper()
	l := ledger{map[string]int64{}, map[string]map[string]int64{}}
	text, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return l
}

// save is the application: it saves what it has not saved under this id yet.
func (l *ledger) save(id string, counts map[string]int64) error {
	if had, ok := l.Saved[id]; ok && !maps.Equal(had, counts) {
		return fmt.Errorf("the batch %s was %v and is %v now", id, had, counts)
	}
	l.Saved[id] = counts
	return nil
}

// live goes through what happens to a journal, and ends the process before the
// given change of the disk: a batch is accepted, one fails and is merged into
// the next, one is delivered in part, one was saved but the answer was lost.
func live(dir string, steps int64) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	l := &ledger{map[string]int64{}, map[string]map[string]int64{}}
	var done atomic.Int64
	j, _, err := open(filepath.Join(dir, "journal"), func(line string) { panic(line) }, func(string) error {
		if done.Add(1) == steps {
			os.Exit(3)
		}
		return nil
	})
	must(err)
	record := func(keys ...string) {
		for _, key := range keys {
			n, err := j.Add(key, 1)
			for err != nil { // The next file is on its way.
				n, err = j.Add(key, 1)
			}
			*n += 2
			l.Counted[key] += 3
		}
		l.store(dir)
	}
	counts := func(factor int64, keys ...string) map[string]int64 {
		m := map[string]int64{}
		for _, key := range keys {
			m[key] += 3 * factor
		}
		return m
	}
	send := func(b *Batch) {
		must(b.SetProgress(Progress{Sent: true, End: b.records}))
	}

	record("a", "b")
	accepted := take(j)
	record("a", "c")
	send(accepted)
	must(l.save(accepted.ID, counts(1, "a", "b")))
	l.store(dir)
	must(accepted.Remove())

	failed := take(j)
	record("a", "b", "d")
	second := take(j)
	record("e")
	merged, err := j.Write(slices.Values([]Record{{"a", 6, false}, {"b", 3, false}, {"c", 3, false}, {"d", 3, false}}),
		failed, second)
	must(err)

	// a and b are accepted, c is set aside.
	send(merged)
	must(l.save(merged.ID+".1", map[string]int64{"a": 6, "b": 3}))
	l.store(dir)
	must(merged.SetProgress(Progress{true, 2, 4}))
	must(merged.SetAside(func(key string) bool { return key == "c" }))
	must(merged.SetProgress(Progress{true, 3, 4}))
	third := take(j)
	record("f")
	rest, err := j.Write(slices.Values([]Record{{"c", 3, true}, {"d", 3, false}, {"e", 3, false}}), merged, third)
	must(err)
	send(rest)
	must(l.save(rest.ID, counts(1, "c", "d", "e")))
	l.store(dir)
	fmt.Println("lived")
	os.Exit(3)
}

// A process that ends before any change of the disk loses nothing and doubles
// nothing, and neither does one that ends while it recovers.
func TestCrashAtEachStep(t *testing.T) {
	for step := 1; ; step++ {
		dir := t.TempDir()
		out, err := child("life", dir, fmt.Sprint("JOURNAL_TEST_STEPS=", step)).Output()
		if code := err.(*exec.ExitError).ExitCode(); code != 3 {
			t.Fatalf("step %d: exit status %d", step, code)
		}
		for _, recovery := range []int64{0, int64(step % 9)} {
			checkRecovery(t, filepath.Join(dir, "journal"), readLedger(t, dir), recovery, fmt.Sprint("step ", step))
		}
		if string(out) == "lived\n" {
			if step < 40 {
				t.Errorf("only %d steps", step)
			}
			return
		}
	}
}

// checkRecovery recovers a copy of the journal, perhaps after a recovery in
// which each change from the given one on fails, and delivers all to the
// application.
func checkRecovery(t *testing.T, from string, l ledger, failAt int64, what string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if failAt > 0 {
		var done atomic.Int64
		j, _, err := open(dir, func(string) {}, func(string) error {
			if done.Add(1) >= failAt {
				return syscall.EIO
			}
			return nil
		})
		if err == nil {
			j.Close()
		}
	}
	j, batches := opened(t, dir)
	defer closed(t, j)
	for _, b := range batches {
		rest := map[string]int64{}
		id := b.ID
		for i, r := range b.Records {
			if r.Aside || i >= b.Progress.First {
				rest[r.Key] = r.Hits
			}
		}
		// The first part of the batch that was sent in parts.
		if saved := l.Saved[id+".1"]; saved != nil && b.Progress.First < len(saved) {
			for key := range saved {
				delete(rest, key)
			}
		}
		if err := l.save(id, rest); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	got := map[string]int64{}
	for _, counts := range l.Saved {
		for key, n := range counts {
			got[key] += n
		}
	}
	if !maps.Equal(got, l.Counted) {
		// Hits that were not acknowledged may be there.
		for key, n := range got {
			if more := n - l.Counted[key]; more < 0 || more > 3 {
				t.Errorf("%s: %d hits of %s, want %d", what, n, key, l.Counted[key])
			}
		}
		for key := range l.Counted {
			if got[key] == 0 {
				t.Errorf("%s: %s is lost", what, key)
			}
		}
	}
}

// count counts hits as fast as it can, and says so.
func count(dir string) {
	j, _, err := Open(dir, func(line string) { panic(line) })
	if err != nil {
		panic(err)
	}
	counts := map[string]*int64{}
	for i := 0; ; i++ {
		key := fmt.Sprint("key ", i*i%5003)
		if n := counts[key]; n != nil {
			*n++
		} else if counts[key], err = j.Add(key, 1); err != nil {
			panic(err)
		}
		if i%7 == 0 {
			os.Stdout.WriteString(strconv.Itoa(i+1) + "\n")
		}
	}
}

// A process that is killed at any instruction has counted what it has
// acknowledged.
func TestKill(t *testing.T) {
	for round := range 10 {
		dir := t.TempDir()
		c := child("count", dir)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged, enough := 0, 500+1777*round
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if acknowledged, err = strconv.Atoi(strings.TrimSpace(lines.Text())); err != nil {
				break // A line that was cut.
			}
			if acknowledged > enough {
				c.Process.Kill()
			}
		}
		c.Wait()
		j, batches := opened(t, dir)
		if len(batches) != 1 {
			t.Fatalf("%d batches are recovered", len(batches))
		}
		sum := int64(0)
		for _, r := range batches[0].Records {
			sum += r.Hits
		}
		if sum < int64(acknowledged) || sum > int64(acknowledged)+7 {
			t.Errorf("%d hits are recovered, want %d and at most 7 more", sum, acknowledged)
		}
		closed(t, j)
	}
}

// fillUp counts new keys where files may have two chunks only, and says how
// many found room.
func fillUp(dir string) {
	limit := syscall.Rlimit{Cur: 2*chunkSize + 1000, Max: 2*chunkSize + 1000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	j, _, err := Open(dir, func(line string) { panic(line) })
	if err != nil {
		panic(err)
	}
	added := 0
	for ; err == nil; added++ {
		_, err = j.Add(fmt.Sprint(added), 1)
	}
	start := time.Now()
	for range 1000 {
		if _, err := j.Add("another", 1); err == nil {
			panic("there is room again")
		}
	}
	if waited := time.Since(start); waited > time.Second {
		panic("hits wait for the disk for " + waited.String())
	}
	fmt.Println(added-1, err)
}

// A full disk is an error, and what was counted is recovered.
func TestFileCanNotGrow(t *testing.T) {
	dir := t.TempDir()
	out, err := child("limit", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	var added int
	if _, err := fmt.Sscan(string(out), &added); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%d journal %s: file too large\n", added, dir); string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if added < 2*chunkSize/32 {
		t.Errorf("there was room for %d keys only", added)
	}
	for _, name := range files(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Size() > 2*chunkSize {
			t.Errorf("%s takes room that it can not use: %v", name, err)
		}
	}
	j, batches := opened(t, dir)
	defer closed(t, j)
	if len(batches) != 1 || len(batches[0].Records) != added {
		t.Errorf("not all %d keys are recovered", added)
	}
}
