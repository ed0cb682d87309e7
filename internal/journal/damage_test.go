//go:build unix

package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// written returns a directory with one file of the given number of keys, whose
// n-th has n hits, and the file's id. The file is frozen and was sent, or is
// the live one of a process that was killed.
func written(t testing.TB, keys int, sent bool) (dir, id string) {
	t.Helper()
	dir = t.TempDir()
	j, _ := opened(t, dir)
	for i := 1; i <= keys; i++ {
		add(t, j, fmt.Sprintf("key %05d", i), int64(i))
	}
	b := j.live
	if sent {
		take(j)
		if err := b.SetProgress(Progress{Sent: true, First: 1, End: 2}); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, b.ID+".hits"))
	if err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	for _, name := range files(t, dir) {
		os.Remove(name)
	}
	if err := os.WriteFile(filepath.Join(dir, b.ID+".hits"), text[:chunkSize], 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, b.ID
}

// recovered opens and closes the journal, and returns what was told beside its
// batches. Every key must be one that was there.
func recovered(t testing.TB, dir string) (batches []*Batch, told []string) {
	t.Helper()
	j, batches, err := Open(dir, func(line string) { told = append(told, line) })
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range batches {
		checkKeys(t, b)
		b.release()
	}
	closed(t, j)
	return batches, told
}

func checkKeys(t testing.TB, b *Batch) {
	t.Helper()
	for _, r := range b.Records {
		var n int
		fmt.Sscanf(r.Key, "key %05d", &n)
		if n < 1 || n > 100 || r.Key != fmt.Sprintf("key %05d", n) {
			t.Errorf("%q was not there", r.Key)
		}
	}
}

func TestDamage(t *testing.T) {
	const keys, size = 100, 32 // a record of these keys has 32 bytes
	record := func(n int) int { return headerSize + n*size }
	zero := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte { clear(b[from:to]); return b }
	}
	set := func(at int, word uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.NativeEndian.PutUint64(b[at:], word); return b }
	}
	cut := func(to int) func([]byte) []byte { return func(b []byte) []byte { return b[:to] } }
	for name, test := range map[string]struct {
		change      func([]byte) []byte
		sent        int // keys left if the file was sent; it is damaged
		live        int // keys left if it was the live one
		liveDamaged bool
	}{
		"empty":                     {cut(0), 0, 0, true},
		"half a header":             {cut(2000), 0, 0, true},
		"a header and no records":   {cut(headerSize), 0, 0, false},
		"cut between records":       {cut(record(10)), 10, 10, false},
		"cut in the count":          {cut(record(10) + 4), 10, 10, false},
		"cut in the key":            {cut(record(10) + 20), 10, 10, true},
		"nothing but zeroes":        {zero(0, chunkSize), 0, 0, true},
		"a header of zeroes":        {zero(0, headerSize), keys, keys, true},
		"the second half of zeroes": {zero(record(50), chunkSize), 50, 50, false},
		"a hole":                    {zero(record(50), record(60)), 90, 90, true},
		"a hole of half records":    {zero(record(50)+8, record(60)+8), 89, 89, true},
		"a count of zero":           {set(record(3), 0), 99, 99, true},
		"a count that is too large": {set(record(3), maxHits+1), 99, 99, true},
		"a negative count":          {set(record(3), 1<<63), 99, 99, true},
		"another length":            {set(record(3)+8, 9), 99, 99, true},
		"another key":               {set(record(3)+16, 9), 99, 99, true},
		"a record that stands twice": {func(b []byte) []byte {
			copy(b[record(5):record(6)], b[record(3):])
			return b
		}, 99, 99, true},
		"the last record is not visible": {set(record(keys-1)+8, 0), 99, 99, false},
		"progress beyond the end":        {set(progressOffset, Progress{true, 0, keys + 1}.word()), keys, keys, true},
		"progress that goes backwards":   {set(progressOffset, Progress{true, 2, 1}.word()), keys, keys, true},
		"another number of records":      {set(recordsOffset, keys-1), keys, keys, true},
		"a checksum of the header":       {set(checkOffset, 1), keys, keys, true},
		"another magic":                  {set(0, 1), keys, keys, true},
		"a file that is replaced":        {set(namesOffset, 1), keys, keys, true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, sent := range []bool{true, false} {
				left, damaged := test.live, test.liveDamaged
				if sent {
					left, damaged = test.sent, true
				}
				dir, id := written(t, keys, sent)
				file := filepath.Join(dir, id+".hits")
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, test.change(text), 0o600); err != nil {
					t.Fatal(err)
				}
				batches, told := recovered(t, dir)
				if len(batches) > 1 || len(batches) == 0 && left > 0 {
					t.Fatalf("sent %v: %d batches are recovered", sent, len(batches))
				}
				for _, b := range batches {
					if len(b.Records) != left {
						t.Errorf("sent %v: %d keys are left, want %d", sent, len(b.Records), left)
					}
					if damaged && (b.ID == id || b.Progress != Progress{}) {
						t.Errorf("sent %v: a damaged batch keeps its id or its progress", sent)
					}
					for _, r := range b.Records {
						if want := fmt.Sprintf("key %05d", r.Hits); r.Key != want {
							t.Errorf("sent %v: %d hits of %s are recovered", sent, r.Hits, r.Key)
						}
					}
				}
				kept, _ := filepath.Glob(filepath.Join(dir, "*.damaged"))
				if !damaged {
					if len(told) != 0 || len(kept) != 0 {
						t.Errorf("sent %v: told %q, and kept %v", sent, told, kept)
					}
					continue
				}
				want := fmt.Sprintf("journal %s: %s.hits was damaged; %d keys were read from it, and it is kept as %s.damaged",
					dir, id, left, id)
				if len(told) != 1 || told[0] != want || len(kept) != 1 {
					t.Errorf("sent %v: told %q, and kept %v, want %q", sent, told, kept, want)
				}
				// That was all that there is to say of it.
				if again, told := recovered(t, dir); len(told) != 0 || left > 0 && len(again[0].Records) != left {
					t.Errorf("sent %v: after a second start: told %q, %d batches", sent, told, len(again))
				}
			}
		})
	}
}

// A key that looks like records is a key, even where damage makes recovery look
// for records in it.
func TestKeyThatLooksLikeRecords(t *testing.T) {
	dir := t.TempDir()
	j, _ := opened(t, dir)
	forged := make([]byte, 4096)
	other := j.newBatch("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	for other.used < 2048 {
		other.put(forged, headerSize+16, Record{Key: "forged", Hits: 1})
	}
	add(t, j, string(forged), 1)
	closed(t, j)
	file := files(t, dir)[0]
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text[headerSize+16+4000]++
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if batches, _ := recovered(t, dir); len(hits(batches...)) != 0 {
		t.Errorf("%v is recovered", hits(batches...))
	}
}

// Files that claim to replace each other are no reason to hang.
func TestFilesThatReplaceEachOther(t *testing.T) {
	dir, first := written(t, 3, true)
	from, second := written(t, 3, true)
	if err := os.Rename(filepath.Join(from, second+".hits"), filepath.Join(dir, second+".hits")); err != nil {
		t.Fatal(err)
	}
	for id, other := range map[string]string{first: second, second: first} {
		file, err := os.OpenFile(filepath.Join(dir, id+".hits"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		head := encodeHeader(3, []string{id, other}, checksum(0, []byte(id)))
		if _, err := file.WriteAt(head, 0); err != nil {
			t.Fatal(err)
		}
		file.Close()
	}
	recovered(t, dir)
}

// Whatever is done to a file, recovery ends and brings no key that was not there.
func FuzzRecovery(f *testing.F) {
	f.Add(uint64(1), uint16(0), true)
	f.Add(uint64(2), uint16(1<<16-1), false)
	const used = headerSize + 50*32
	ids, texts := map[bool]string{}, map[bool][]byte{}
	for _, sent := range []bool{true, false} {
		dir, id := written(f, 50, sent)
		text, err := os.ReadFile(filepath.Join(dir, id+".hits"))
		if err != nil {
			f.Fatal(err)
		}
		ids[sent], texts[sent] = id, text[:used+1000]
	}
	f.Fuzz(func(t *testing.T, seed uint64, size uint16, sent bool) {
		text := slices.Clone(texts[sent])
		random := rand.New(rand.NewPCG(seed, 0))
		for range random.IntN(10) {
			at, n := random.IntN(used), random.IntN(1<<random.IntN(12))
			for i := at; i < min(at+n, used); i++ {
				switch seed % 3 {
				case 0:
					text[i] = 0
				case 1:
					text[i] = byte(random.Uint32())
				case 2: // from elsewhere
					text[i] = text[random.IntN(used/8)*8+i%8]
				}
			}
		}
		b := new(Journal).newBatch(ids[sent])
		if err := b.decode(bytes.NewReader(text[:min(len(text), int(size))])); err != nil {
			t.Fatal(err)
		}
		checkKeys(t, b)
		if n := len(b.Records); sent && n < 50 && !b.damaged {
			t.Errorf("%d of 50 keys are left, and the file is not damaged", n)
		}
	})
}

// Any bytes at all may stand in a file.
func FuzzDecode(f *testing.F) {
	const id = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	b := new(Journal).newBatch(id)
	f.Add(encodeHeader(0, []string{id}, b.seed), []byte(nil))
	chunk := make([]byte, 1000)
	b.put(chunk, headerSize, Record{"a", 1, false})
	b.put(chunk, headerSize, Record{"a longer key", 2, true})
	f.Add(encodeHeader(2, nil, b.seed), chunk)
	f.Fuzz(func(t *testing.T, head, text []byte) {
		b := new(Journal).newBatch(id)
		if err := b.decode(bytes.NewReader(append(head[:min(len(head), headerSize)], text...))); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if r.Key != "a" && r.Key != "a longer key" || r.Hits < 1 || r.Hits > maxHits {
				t.Errorf("%v was not there", r)
			}
		}
		if n := len(b.Records); !b.damaged && (b.Progress.First > n || b.Progress.End > n) {
			t.Errorf("the progress of %d keys is %v", n, b.Progress)
		}
	})
}

// Errors are one line each, nothing is lost, and the journal is in order
// afterwards.
func TestErrors(t *testing.T) {
	full := fmt.Errorf("write: %w", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC})
	dir := t.TempDir()
	var broken atomic.Bool
	before := func(string) error {
		if broken.Load() {
			return full
		}
		return nil
	}
	j, _, err := open(dir, func(line string) { t.Errorf("told: %s", line) }, before)
	if err != nil {
		t.Fatal(err)
	}
	n := add(t, j, "a", 1)
	b := take(j)
	add(t, j, "b", 2)
	broken.Store(true)
	want := "journal " + dir + ": no space left on device"
	for name, call := range map[string]func() error{
		"SetProgress": func() error { return b.SetProgress(Progress{Sent: true}) },
		"SetAside":    func() error { return b.SetAside(func(string) bool { return true }) },
		"Write":       func() error { _, err := j.Write(func(func(Record) bool) {}, b); return err },
	} {
		if err := call(); err == nil || err.Error() != want {
			t.Errorf("%s: the error is %v, want %s", name, err, want)
		}
	}
	*n++ // The batch was not replaced.
	if err := b.Remove(); err == nil || err.Error() != want {
		t.Errorf("Remove: the error is %v, want %s", err, want)
	}
	broken.Store(false)
	closed(t, j)
	j, batches := opened(t, dir)
	defer closed(t, j)
	check(t, batches, 1, map[string]int64{"a": 2, "b": 2})
}

// On a full disk the journal is opened, and it is used as soon as there is
// room.
func TestFullDiskAtTheStart(t *testing.T) {
	dir, id := written(t, 3, false)
	other, _ := written(t, 5, false)
	if err := os.CopyFS(dir, os.DirFS(other)); err != nil {
		t.Fatal(err)
	}
	var roomy atomic.Bool
	before := func(step string) error {
		if !roomy.Load() && !strings.HasPrefix(step, "remove") {
			return syscall.ENOSPC
		}
		return nil
	}
	var told []string
	j, batches, err := open(dir, func(line string) { told = append(told, line) }, before)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, j)
	if len(batches) != 2 || len(batches[0].Records)+len(batches[1].Records) != 8 {
		t.Errorf("the batches are not returned as they are")
	}
	want := []string{
		"journal " + dir + ": no space left on device; new keys are counted in memory only",
		"journal " + dir + ": no space left on device: files of the journal can not be merged",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if _, err := j.Add("a", 1); err == nil || err.Error() != "journal "+dir+": no space left on device" {
		t.Errorf("the error is %v", err)
	}
	roomy.Store(true)
	for deadline := time.Now().Add(10 * time.Second); ; {
		if _, err = j.Add("a", 1); err == nil || time.Now().After(deadline) {
			break
		}
		j.Prepare()
	}
	if err != nil {
		t.Errorf("there is room, but %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, id+".hits")); err != nil {
		t.Error(err)
	}
}

// A power cut finds the new file on the disk before the old ones are gone, and with
// its progress before the first part of it is sent.
func TestOrderOfChanges(t *testing.T) {
	var mu sync.Mutex
	var steps []string
	dir := t.TempDir()
	j, _, err := open(dir, func(string) {}, func(step string) error {
		mu.Lock()
		defer mu.Unlock()
		steps = append(steps, step)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, j)
	add(t, j, "a", 1)
	old := take(j)
	b, err := j.Write(slices.Values([]Record{{"a", 1, false}}), old)
	if err != nil {
		t.Fatal(err)
	}
	for end := range 2 {
		if err := b.SetProgress(Progress{Sent: true, End: end}); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	steps = slices.DeleteFunc(steps, func(step string) bool {
		return !strings.Contains(step, b.ID) && !strings.Contains(step, old.ID+".hits") && step != "sync "+j.dir.Name()
	})
	want := []string{"create 1.tmp", "write 1", "write 1", "sync 1.tmp", "rename 1.tmp", "sync dir", "remove 2.hits",
		"write 1", "sync 1.tmp", "sync dir", "write 1"}
	replacer := strings.NewReplacer(filepath.Join(dir, b.ID), "1", b.ID, "1", old.ID, "2", j.dir.Name(), "dir")
	for i, step := range steps {
		steps[i] = replacer.Replace(step)
	}
	if !slices.Equal(steps, want) {
		t.Errorf("the steps are %q, want %q", steps, want)
	}
}

// A file that was replaced and could not be deleted does not come back when the
// one that replaced it is deleted.
func TestReplacedFileThatCanNotBeDeleted(t *testing.T) {
	dir := t.TempDir()
	var kept atomic.Pointer[string]
	before := func(step string) error {
		if id := kept.Load(); id != nil && step == "remove "+*id+".hits" {
			return syscall.EACCES
		}
		return nil
	}
	j, _, err := open(dir, func(string) {}, before)
	if err != nil {
		t.Fatal(err)
	}
	add(t, j, "a", 1)
	old := take(j)
	kept.Store(&old.ID)
	b, err := j.Write(func(yield func(Record) bool) { yield(Record{"a", 1, false}) }, old)
	if err != nil {
		t.Fatal(err)
	}
	b, err = j.Write(func(yield func(Record) bool) { yield(Record{"a", 1, false}) }, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Remove(); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the error is %v", err)
	}
	closed(t, j)
	j, batches := opened(t, dir)
	defer closed(t, j)
	check(t, batches, 1, map[string]int64{"a": 1})
}

// A damaged file is kept aside even if the process ends before it is renamed.
func TestDamagedFileThatIsRenamedLater(t *testing.T) {
	dir, id := written(t, 3, true)
	if err := os.Truncate(filepath.Join(dir, id+".hits"), headerSize+40); err != nil {
		t.Fatal(err)
	}
	j, _, err := open(dir, func(string) {}, func(step string) error {
		if step == "rename "+id+".hits" {
			return syscall.EACCES
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	closed(t, j)
	j, batches := opened(t, dir)
	defer closed(t, j)
	check(t, batches, 1, map[string]int64{"key 00001": 1})
	if _, err := os.Stat(filepath.Join(dir, id+".damaged")); err != nil {
		t.Error(err)
	}
}

// What can not be used is refused at the start.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                              "not a directory",
		filepath.Join(dir, "missing/sub"): "no such file or directory",
		"":                                "no such file or directory",
	} {
		_, _, err := Open(path, func(string) {})
		if want = "journal " + path + ": " + want; err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	for _, cause := range []error{syscall.EACCES, syscall.EROFS} {
		_, _, err := open(dir, func(string) {}, func(string) error { return cause })
		if want := "journal " + dir + ": " + cause.Error(); err == nil || err.Error() != want {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
}
