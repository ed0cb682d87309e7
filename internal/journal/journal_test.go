//go:build unix

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// opened opens the journal in dir, and fails the test if anything is told.
func opened(t testing.TB, dir string) (*Journal, map[string]int64, []*File) {
	t.Helper()
	j, live, sealed, err := Open(dir, func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	return j, plain(t, live), sealed
}

// plain returns counts as numbers.
func plain(t testing.TB, counts map[string]*int64) map[string]int64 {
	m := make(map[string]int64)
	for key, n := range counts {
		hits, ok := Load(n)
		if !ok {
			t.Errorf("the count of %q cannot be read", key)
		}
		m[key] = hits
	}
	return m
}

// add adds a key for which there must be room, as soon as the file has grown.
func add(t testing.TB, j *Journal, key string, hits int64) *int64 {
	t.Helper()
	n, err := j.Add(key, hits)
	for errors.Is(err, errSlow) {
		n, err = j.Add(key, hits)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seal seals the live file, and makes the next one first.
func seal(j *Journal) *File {
	j.Prepare()
	return j.Seal()
}

// kill ends the use of a journal as a kill does: all files stay.
func kill(j *Journal) {
	for _, f := range []*File{j.live, j.next} { // A file does not grow after a kill.
		if f != nil && f.growth != nil {
			<-f.growth
		}
	}
	j.live, j.next = nil, nil
	j.Close()
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLiveFileGoesOn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, _, _ := opened(t, dir)
	want := map[string]int64{}
	for i := range 50_000 { // more than a file has at first
		key := fmt.Sprintf("%s-%d", strings.Repeat("é", i%40), i)
		if !Add(add(t, j, key, 1), int64(i)) {
			t.Fatal("a count cannot be added to")
		}
		want[key] = int64(i) + 1
	}
	long := strings.Repeat("x", maxKey)
	add(t, j, long, 2)
	want[long] = 2
	if _, err := j.Add(long+"x", 1); err == nil {
		t.Error("a key that is too long is added")
	}
	kill(j)
	for i := range 3 {
		j, live, sealed := opened(t, dir)
		if !maps.Equal(live, want) || len(sealed) > 0 {
			t.Fatalf("%d keys are live again, want %d, and %d files are sealed", len(live), len(want), len(sealed))
		}
		key := fmt.Sprint("new", i)
		add(t, j, key, 7)
		want[key] = 7
		kill(j)
		if names := files(t, dir); len(names) != 1 {
			t.Errorf("the files are %q", names)
		}
	}
	for _, name := range append(files(t, dir), dir) {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm()&0o077 != 0 || info.Size() > 8<<20 {
			t.Errorf("%s has the mode %v and %d bytes (error %v)", name, info.Mode(), info.Size(), err)
		}
	}
}

// A record that was never finished does not come to light, and what is added later is in order.
func TestUnfinishedRecord(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	add(t, j, "a", 1)
	copy(j.live.data[j.live.used:], "\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00a key of some length")
	kill(j)
	j, live, _ := opened(t, dir)
	add(t, j, "b", 1)
	kill(j)
	_, live2, _ := opened(t, dir)
	if len(live) != 1 || len(live2) != 2 {
		t.Errorf("recovered %v and then %v", live, live2)
	}
}

// A file that somebody has cut, if only by a few bytes, is not added to any more: the end of its last page would not be on
// the disk. What it has is delivered.
func TestCutFileIsSealed(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	add(t, j, "a", 1)
	kill(j)
	if err := os.Truncate(files(t, dir)[0], growSize-100); err != nil {
		t.Fatal(err)
	}
	j, live, sealed := opened(t, dir)
	if len(live) > 0 || len(sealed) != 1 || !slices.Equal(sealed[0].Records, []Record{{"a", 1}}) {
		t.Errorf("live: %v, sealed: %+v", live, sealed)
	}
	kill(j)
}

func TestFileThatWasSent(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	if seal(j) != nil {
		t.Error("a file without a key is sealed")
	}
	add(t, j, "b", 2)
	add(t, j, "a", 1)
	f := seal(j)
	p := Progress{Sent: true, First: 0, From: 1, End: 2, Skip: 1}
	if err := f.SetProgress(p); err != nil {
		t.Fatal(err)
	}
	add(t, j, "c", 3)
	kill(j)
	j, live, sealed := opened(t, dir)
	if len(sealed) != 1 || sealed[0].ID != f.ID || sealed[0].Progress != p ||
		!slices.Equal(sealed[0].Records, []Record{{"a", 1}, {"b", 2}}) || !maps.Equal(live, map[string]int64{"c": 3}) {
		t.Errorf("live: %v, sealed: %+v", live, sealed)
	}
	if err := sealed[0].SetProgress(Progress{Sent: true, First: 2, From: 2, End: 2}); err != nil {
		t.Error(err)
	}
	kill(j)
	_, _, sealed = opened(t, dir)
	if len(sealed) > 0 || len(files(t, dir)) != 1 {
		t.Errorf("a file that is done with is not deleted: %q", files(t, dir))
	}
}

// The format does not change: a file that was written before is read, byte by byte.
func TestGoldenFile(t *testing.T) {
	const name = "GOLDENGOLDENGOLDENGOLDENGO"
	golden, err := os.ReadFile(filepath.Join("testdata", name+".hits"))
	if err != nil {
		t.Fatal(err)
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the file is from a little-endian machine")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name+".hits"), golden, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, sealed := opened(t, dir)
	want := []Record{{"a", 1}, {"article-42", 1204}, {"é", 3}}
	p := Progress{Sent: true, First: 1, From: 1, End: 2, Skip: 2}
	if len(sealed) != 1 || sealed[0].ID != name || !slices.Equal(sealed[0].Records, want) || sealed[0].Progress != p {
		t.Fatalf("read %+v", sealed)
	}

	// And the same file is written.
	j, _, _ := opened(t, t.TempDir())
	f := j.live
	f.seed = checksum(0, []byte(name))
	for _, r := range []Record{{"article-42", 1204}, {"a", 1}, {"é", 3}} {
		add(t, j, r.Key, r.Hits)
	}
	if err := f.SetProgress(p); err != nil {
		t.Fatal(err)
	}
	if string(f.data[:f.used]) != string(golden) {
		t.Errorf("written:\n%x\nwant:\n%x", f.data[:f.used], golden)
	}
}

// There are few files, whatever happens, and none of a stop without hits.
func TestFewFiles(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	for i := range 20 {
		add(t, j, fmt.Sprint(i), 1)
		if err := seal(j).Remove(); err != nil {
			t.Fatal(err)
		}
		if n := len(files(t, dir)); n != 1 {
			t.Errorf("%d files, want 1", n)
		}
	}
	j.Close()
	if names := files(t, dir); len(names) > 0 {
		t.Errorf("the files %q are left", names)
	}
}

func TestDirectoryIsLocked(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	if _, _, _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "in use by another pixel-ping") {
		t.Errorf("the error is %v", err)
	}
	j.Close()
	opened(t, dir)
}

// What is not the journal's, or is of another format, is left alone, and that is said each time, in little time.
func TestWhatIsNotTheJournals(t *testing.T) {
	const name = "AAAAAAAAAAAAAAAAAAAAAAAAAA.hits"
	word := func(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }
	for what, test := range map[string]struct {
		content []byte
		size    int64
		say     string // what is told; "" if the file is deleted without a word
		format  bool   // --check says so, too
	}{
		"of 1.1.0": {word(magic1), 4096,
			"it is of version 1.1.0; start that version with the application up, and stop it", true},
		"of a later one": {word(magic1 + 2<<56), 4096,
			"it is of another format; start the version that wrote it, and stop it", true},
		"a text": {[]byte("some text, and more\n"), 0,
			"it is of another format; start the version that wrote it, and stop it", true},
		"a large hole":    {nil, 1 << 42, "it is of another format; start the version that wrote it, and stop it", true},
		"empty":           {nil, 0, "", false},
		"never used":      {nil, 1 << 20, "", false},
		"never used, too": {append(word(magic), Progress{}.encode(checksum(0, []byte(name[:26])))...), 2 << 20, "", false},
	} {
		dir := filepath.Join(t.TempDir(), "[journal]*")
		path := filepath.Join(dir, name)
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			err = os.WriteFile(path, test.content, 0o600)
		}
		if err == nil && test.size > 0 {
			err = os.Truncate(path, test.size)
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			var told, checked []string
			j, live, sealed, err := Open(dir, func(line string) { told = append(told, line) })
			if err != nil {
				t.Fatal(err)
			}
			j.Close()
			if err := Check(dir, func(line string) { checked = append(checked, line) }); err != nil {
				t.Error(err)
			}
			var want []string
			if test.say != "" {
				want = []string{fmt.Sprintf("journal %s: %s is left alone: %s", dir, name, test.say)}
			}
			if !slices.Equal(told, want) || !slices.Equal(checked, want) || len(live) > 0 || len(sealed) > 0 {
				t.Errorf("%s: told %q, and by --check %q, want %q", what, told, checked, want)
			}
			if _, err := os.Stat(path); (err == nil) != (test.say != "") {
				t.Errorf("%s: the file is there: %v", what, err == nil)
			}
		}
	}
}

// A pipe in the directory, which nobody writes to, does not stop the check or a start.
func TestPipe(t *testing.T) {
	const name = "AAAAAAAAAAAAAAAAAAAAAAAAAA.hits"
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
		t.Fatal(err)
	}
	var told []string
	tell := func(line string) { told = append(told, line) }
	if err := Check(dir, tell); err != nil {
		t.Error(err)
	}
	j, _, _, err := Open(dir, tell)
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
	for _, line := range told {
		if !strings.Contains(line, name) || !strings.Contains(line, "left alone") {
			t.Errorf("told %q", line)
		}
	}
	if len(told) != 2 {
		t.Errorf("told %q, want a line by the check and one by the start", told)
	}
}

// A file of the journal that has become one large hole is read in little time.
func TestLargeHole(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	add(t, j, "a", 1)
	kill(j)
	if err := os.Truncate(files(t, dir)[0], 1<<42); err != nil {
		t.Fatal(err)
	}
	_, live, _ := opened(t, dir)
	if !maps.Equal(live, map[string]int64{"a": 1}) {
		t.Errorf("recovered %v", live)
	}
}

// What can be read of a damaged file is delivered under another id, from the beginning, which is the same one at each
// start. The file is kept aside.
func TestDamage(t *testing.T) {
	const keys = 40_000
	for what, damage := range map[string]func(f *os.File){
		"the progress":        func(f *os.File) { f.WriteAt([]byte{9}, progressOffset+8) },
		"the checksum":        func(f *os.File) { f.WriteAt([]byte{9}, progressOffset+40) },
		"a count":             func(f *os.File) { f.WriteAt([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, headerSize) },
		"a key":               func(f *os.File) { f.WriteAt([]byte{'z'}, headerSize+16) },
		"zeroes over records": func(f *os.File) { f.WriteAt(make([]byte, 64), headerSize+32) },
		"a page of zeroes":    func(f *os.File) { f.WriteAt(make([]byte, 4096), 8192) },
		"the magic":           func(f *os.File) { f.WriteAt(make([]byte, 8), 0) },
	} {
		dir := t.TempDir()
		j, _, _ := opened(t, dir)
		for i := range keys {
			add(t, j, fmt.Sprintf("%05d", i), int64(i+1))
		}
		f := seal(j)
		if err := f.SetProgress(Progress{Sent: true, First: 5, From: 5, End: 6}); err != nil {
			t.Fatal(err)
		}
		kill(j)
		file, err := os.OpenFile(filepath.Join(dir, f.ID+".hits"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		damage(file)
		file.Close()
		id := ""
		for range 2 {
			var told []string
			j, live, sealed, err := Open(dir, func(line string) { told = append(told, line) })
			if err != nil || len(told) != 1 || len(sealed) != 1 || len(live) > 0 {
				t.Fatalf("%s: told %q, %d sealed, error %v", what, told, len(sealed), err)
			}
			s := sealed[0]
			want := fmt.Sprintf("journal %s: %s.hits is damaged; %d keys were read from it, and it will be kept as %s.damaged",
				dir, f.ID, len(s.Records), f.ID)
			if told[0] != want || s.ID == f.ID || id != "" && s.ID != id || s.Progress != (Progress{}) || len(s.Records) < keys-200 {
				t.Errorf("%s: told %q; %s has %d records and the progress %+v", what, told, s.ID, len(s.Records), s.Progress)
			}
			for _, r := range s.Records {
				if fmt.Sprintf("%05d", r.Hits-1) != r.Key {
					t.Errorf("%s: %q has %d hits", what, r.Key, r.Hits)
				}
			}
			id = s.ID
			if err := s.SetProgress(Progress{Sent: true, First: 7, From: 7, End: 8}); err != nil {
				t.Error(err)
			}
			kill(j)
		}
		j, _, sealed, err := Open(dir, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		if err := sealed[0].Remove(); err != nil {
			t.Error(err)
		}
		j.Close()
		opened(t, dir)
		if names := files(t, dir); !slices.Contains(names, filepath.Join(dir, f.ID+".damaged")) {
			t.Errorf("%s: the files are %q", what, names)
		}
	}
}

// A client cannot make a key that looks like the record of another key.
func TestKeyThatLooksLikeRecords(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	add(t, j, "a", 1)
	stolen := append([]byte(nil), j.live.data[headerSize:j.live.used]...)
	add(t, j, strings.Repeat(string(stolen), 3), 1)
	copy(j.live.data[headerSize+8:], "\xff\xff\xff\xff\xff\xff\xff\xff") // The reader has to look for records.
	kill(j)
	_, _, sealed, err := Open(dir, func(string) {})
	if err != nil || len(sealed) != 1 || len(sealed[0].Records) != 1 || sealed[0].Records[0].Key == "a" {
		t.Errorf("recovered %+v, error %v", sealed, err)
	}
}

// A full or a read-only disk is told at the start, and then there is no room.
func TestFullDiskAtTheStart(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT} {
		dir := t.TempDir()
		full := true
		var told []string
		j, _, _, err := open(dir, func(line string) { told = append(told, line) }, func(string) error {
			if full {
				return cause
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("journal %s: %v; new keys are counted in memory only", dir, cause); len(told) != 1 || told[0] != want {
			t.Errorf("told %q, want %q", told, want)
		}
		if _, err := j.Add("a", 1); !errors.Is(err, cause) {
			t.Errorf("a key is added: %v", err)
		}
		full = false
		j.Prepare() // Hits come before the seal that follows, and while the next file is made.
		if n, err := j.Add("a", 1); n != nil || !errors.Is(err, cause) {
			t.Errorf("between Prepare and Seal, a key is added at %v: %v", n, err)
		}
		if seal(j) != nil {
			t.Error("there is a file")
		}
		add(t, j, "a", 1)
		kill(j)
	}
	if _, _, _, err := open(t.TempDir(), nil, func(string) error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Errorf("the error is %v", err)
	}
}

// A key for which the file has not grown yet waits for that, but only for 100 ms from when it began, unless the Journal is
// patient. Later keys do not wait then.
func TestKeysWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for growTakes, want := range map[time.Duration]error{99 * time.Millisecond: nil, time.Hour: errSlow} {
			grown := 0
			j, _, _, err := open(t.TempDir(), nil, func(step string) error {
				if strings.HasPrefix(step, "write") {
					if grown++; grown > 1 { // Open waits for the first.
						<-time.After(growTakes)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			long := strings.Repeat("x", 16<<10)
			addUntil := func(end time.Time) (err error) {
				for i := 0; err == nil && time.Now().Before(end); i++ {
					_, err = j.Add(fmt.Sprint(i, long), 1)
				}
				return err
			}
			began := time.Now()
			err = addUntil(began.Add(4 * min(growTakes, growTime)))
			if took := time.Since(began); !errors.Is(err, want) || took != 4*growTakes && took != growTime {
				t.Errorf("the file grows in %v: the error is %v, after %v", growTakes, err, took)
			}
			if want != nil {
				if err = addUntil(time.Now().Add(1)); !errors.Is(err, want) || time.Since(began) != growTime {
					t.Errorf("the next key waits until %v, and its error is %v", time.Since(began), err)
				}
				j.Patient = true
				if err = addUntil(began.Add(3 * time.Hour)); err != nil || time.Since(began) != 3*time.Hour {
					t.Errorf("after %v a patient Journal has the error %v", time.Since(began), err)
				}
			}
			kill(j)
		}
	})
}

// A file that somebody has cut does not grow: zeroes would take the place of its counts, and nobody would know.
func TestFileIsCutBeforeItGrows(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := opened(t, dir)
	n := add(t, j, "a", 1)
	<-j.live.growth
	name := files(t, dir)[0]
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	j.live.growMore()
	if err := <-j.live.growth; !errors.Is(err, ErrFault) {
		t.Errorf("the file grows with the error %v", err)
	}
	j.live.growth = nil
	if Add(n, 1) {
		t.Error("a hit is added to a count that is gone")
	}
	if info, err := os.Stat(name); err != nil || info.Size() > 0 {
		t.Errorf("the file has grown again: %v, error %v", info, err)
	}
	kill(j)
}

// The progress is stored before it counts, and the first time all of the file is on the disk.
func TestOrderOfChanges(t *testing.T) {
	var mu sync.Mutex // The files grow meanwhile.
	var steps []string
	dir := t.TempDir()
	j, _, _, err := open(dir, nil, func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		if kind, _, _ := strings.Cut(step, " "); kind != "write" || strings.Contains(step, "write") {
			steps = append(steps, kind)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, "a", 1)
	f := seal(j)
	<-f.growth
	f.growth = nil
	<-j.live.growth
	j.live.growth = nil
	mu.Lock()
	steps = nil
	mu.Unlock()
	f.SetProgress(Progress{Sent: true, End: 1})
	f.SetProgress(Progress{Sent: true, First: 1, From: 1, End: 1})
	f.Remove()
	mu.Lock()
	got := slices.Clone(steps)
	mu.Unlock()
	if want := []string{"write", "sync", "sync", "write", "remove"}; !slices.Equal(got, want) {
		t.Errorf("the steps are %q, want %q", got, want)
	}
	kill(j)
}

func FuzzRead(f *testing.F) {
	dir := f.TempDir()
	j, _, _ := opened(f, dir)
	for i := range 10 {
		add(f, j, fmt.Sprint("key", i), 1)
	}
	f.Add(append([]byte(nil), j.live.data[:j.live.used]...))
	f.Add([]byte{})
	kill(j)
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "AAAAAAAAAAAAAAAAAAAAAAAAAA.hits"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		j, live, sealed, err := Open(dir, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		plain(t, live)
		for _, s := range sealed {
			if p := s.Progress; p.First < 0 || p.First > p.From || p.From > p.End || p.End > len(s.Records) {
				t.Errorf("the progress of %d records is %+v", len(s.Records), p)
			}
		}
		kill(j)
	})
}

// BenchmarkAdd adds new keys.
func BenchmarkAdd(b *testing.B) {
	j, _, _ := opened(b, b.TempDir())
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		add(b, j, fmt.Sprint(i), 1)
	}
}
