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
	Counted map[string]int64    // hits that were acknowledged
	Saved   map[string][]Record // by id
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
	l := ledger{map[string]int64{}, map[string][]Record{}}
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
func (l *ledger) save(id string, records []Record) error {
	if had, ok := l.Saved[id]; ok && !slices.Equal(had, records) {
		return fmt.Errorf("the part %s was %v and is %v now", id, had, records)
	}
	l.Saved[id] = slices.Clone(records)
	return nil
}

// send sends a part of a file, of which records are all, as hits.Batch does, and has the application save it.
func (l *ledger) send(f *File, records []Record, from, end int) error {
	p := Progress{Sent: true, First: from, From: from, End: end}
	if err := f.SetProgress(p); err != nil {
		return err
	}
	return l.save(fmt.Sprintf("%s.%d-%d", f.ID, from, end), records[from:end])
}

// live goes through what happens to a journal, and ends the process before the given change of the disk. A file is
// delivered, one in parts, and one is refused; one is in doubt.
func live(dir string, steps int64) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	l := &ledger{map[string]int64{}, map[string][]Record{}}
	var done atomic.Int64
	j, _, _, err := open(filepath.Join(dir, "journal"), func(line string) { panic(line) }, func(string) error {
		if done.Add(1) == steps {
			os.Exit(3)
		}
		return nil
	})
	must(err)
	record := func(keys ...string) (records []Record) {
		for _, key := range keys {
			n, err := j.Add(key, 1)
			must(err)
			Add(n, 2)
			l.Counted[key] += 3
			records = append(records, Record{key, 3})
		}
		l.store(dir)
		return records
	}

	records := record("a", "b")
	delivered := seal(j)
	must(l.send(delivered, records, 0, 2))
	l.store(dir)
	record("x")
	must(delivered.Remove())

	parts := seal(j)
	records = record("a", "b", "c", "d")
	must(l.send(parts, []Record{{"x", 3}}, 0, 1))
	l.store(dir)
	must(parts.Remove())
	parts = seal(j)
	for position := range 3 {
		must(l.send(parts, records, position, position+1))
		l.store(dir)
	}
	must(parts.SetProgress(Progress{Sent: true, First: 3, From: 3, End: 3})) // The next one is refused.
	records = record("a", "e")
	doubt := seal(j)
	record("f")
	must(l.send(doubt, records, 0, 2))
	l.store(dir)
	record("g")
	fmt.Println("lived")
	os.Exit(3)
}

// A process that ends before any change of the disk loses nothing and doubles nothing, and neither does one that
// ends while it recovers.
func TestCrashAtEachStep(t *testing.T) {
	for step := 1; ; step++ {
		dir := t.TempDir()
		out, err := child("life", dir, fmt.Sprint("JOURNAL_TEST_STEPS=", step)).Output()
		if code := err.(*exec.ExitError).ExitCode(); code != 3 {
			t.Fatalf("step %d: exit status %d", step, code)
		}
		for failAt := range int64(6) {
			checkRecovery(t, filepath.Join(dir, "journal"), readLedger(t, dir), failAt, fmt.Sprint("step ", step))
		}
		if string(out) == "lived\n" {
			if step < 25 {
				t.Errorf("only %d steps", step)
			}
			return
		}
	}
}

// checkRecovery recovers a copy of the journal, perhaps after a recovery in which each change of the disk from the
// given one on fails, and delivers all to the application.
func checkRecovery(t *testing.T, from string, l ledger, failAt int64, what string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if failAt > 0 {
		var done atomic.Int64
		j, _, _, err := open(dir, func(string) {}, func(string) error {
			if done.Add(1) >= failAt {
				return syscall.EIO
			}
			return nil
		})
		if err == nil {
			kill(j)
		}
	}
	j, live, sealed := opened(t, dir)
	defer kill(j)
	for _, f := range sealed {
		p := f.Progress
		var err error
		if p.From < p.End {
			err = l.send(f, f.Records, p.From, p.End)
		}
		if err == nil && max(p.First, p.End) < len(f.Records) {
			err = l.send(f, f.Records, max(p.First, p.End), len(f.Records))
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	got := maps.Clone(live)
	for _, records := range l.Saved {
		for _, r := range records {
			got[r.Key] += r.Hits
		}
	}
	for key := range l.Counted {
		got[key] += 0
	}
	for key, n := range got { // Hits that were not acknowledged may be there.
		if more := n - l.Counted[key]; more < 0 || more > 3 {
			t.Errorf("%s, failing at %d: %d hits of %s, want %d", what, failAt, n, key, l.Counted[key])
		}
	}
	if n := len(files(t, dir)); n > 4 {
		t.Errorf("%s: there are %d files", what, n)
	}
}

// count counts hits as fast as it can, and says so.
func count(dir string) {
	j, _, _, err := Open(dir, func(line string) { panic(line) })
	if err != nil {
		panic(err)
	}
	counts := map[string]*int64{}
	for i := 0; ; i++ {
		key := fmt.Sprint("key ", i*i%5003)
		if n := counts[key]; n != nil {
			Add(n, 1)
		} else if counts[key], err = j.Add(key, 1); err != nil {
			panic(err)
		}
		if i%7 == 0 {
			os.Stdout.WriteString(strconv.Itoa(i+1) + "\n")
		}
	}
}

// A process that is killed at any instruction has counted what it has acknowledged.
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
		j, live, _ := opened(t, dir)
		sum := int64(0)
		for _, n := range live {
			sum += n
		}
		if sum < int64(acknowledged) || sum > int64(acknowledged)+7 {
			t.Errorf("%d hits are recovered, want %d and at most 7 more", sum, acknowledged)
		}
		kill(j)
	}
}

// fillUp counts new keys where files may be of 2 MiB only, and says how many found room.
func fillUp(dir string) {
	limit := syscall.Rlimit{Cur: 2*growSize + 1000, Max: 2*growSize + 1000}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		panic(err)
	}
	j, _, _, err := Open(dir, func(line string) { panic(line) })
	if err != nil {
		panic(err)
	}
	added := 0
	for err == nil || err != nil && strings.Contains(err.Error(), errSlow.Error()) {
		if _, err = j.Add(fmt.Sprint(added), 1); err == nil {
			added++
		}
	}
	fmt.Println(added, err)
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
	if added < 2*growSize/32 {
		t.Errorf("there was room for %d keys only", added)
	}
	for _, name := range files(t, dir) {
		if info, err := os.Stat(name); err != nil || info.Size() > 2*growSize {
			t.Errorf("%s takes room that it can not use: %v", name, err)
		}
	}
	j, live, _ := opened(t, dir)
	defer kill(j)
	if len(live) != added {
		t.Errorf("%d keys are recovered, want %d", len(live), added)
	}
}
