package flush_test

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// readOnly lets this process only read the files of a journal that it has open, as on a disk that has become read-only,
// until writable is called. New files can be written.
func readOnly(t *testing.T, dir string) (writable func()) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[int]string) // of the files, before this function opens any: the list has a descriptor that is closed
	for _, link := range links {
		if name, err := os.Readlink(link); err == nil && strings.HasPrefix(name, dir+"/") {
			fd, _ := strconv.Atoi(filepath.Base(link))
			names[fd] = name
		}
	}
	before := make(map[int]int) // what the descriptors were, under other numbers
	for fd, name := range names {
		if before[fd], err = syscall.Dup(fd); err != nil {
			t.Fatal(err)
		}
		reads, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		if err == nil {
			err = syscall.Dup3(reads, fd, syscall.O_CLOEXEC)
			syscall.Close(reads)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	writable = sync.OnceFunc(func() {
		for fd, was := range before {
			if err := syscall.Dup3(was, fd, syscall.O_CLOEXEC); err != nil {
				t.Error(err)
			}
			syscall.Close(was)
		}
	})
	return writable
}

// A part whose place is stored is sent again though the disk is read-only by then. The next part waits.
func TestStoredPartDoesNotWait(t *testing.T) {
	var saved []string
	answer := "500 Oops"
	l := &lives{answer: func(p part) string {
		switch {
		case len(p.counts) > 1:
			return "413 Too Large"
		case strings.HasPrefix(answer, "204"):
			saved = append(saved, p.keys())
		}
		return answer
	}}
	store, flush, _ := l.process(t)
	store.Record("a")
	store.Record("b")
	flush()
	answer = "204 No Content"
	writable := readOnly(t, l.dir)
	flush()
	writable()
	if want := []string{"a"}; !slices.Equal(saved, want) {
		t.Errorf("saved %q, want %q; the log is:\n%s", saved, want, &l.log)
	}
	if flush(); store.Stats().Pending > 0 {
		t.Errorf("%d hits are left; the log is:\n%s", store.Stats().Pending, &l.log)
	}
}

// The disk is read-only. A batch that has to be sent in parts waits, since after a kill other parts might be sent. So
// does the next one. What is counted after that arrives.
func TestPartsWaitForTheDisk(t *testing.T) {
	saved := make(map[string]int64)
	l := &lives{answer: func(p part) string {
		if len(p.counts) > 1 {
			return "413 Too Large"
		}
		for key, n := range p.counts {
			saved[key] += n
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	for _, keys := range []string{"ab", "cd", "e"} {
		for key := range strings.SplitSeq(keys, "") {
			store.Record(key)
		}
		readOnly(t, l.dir)
		flush()
	}
	if want := map[string]int64{"e": 1}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v", saved, want)
	}
	if line := ": read-only file system; a part of a batch waits until its place can be stored\n"; !strings.Contains(
		l.log.String(), line) {
		t.Errorf("there is no line %q; the log is:\n%s", line, &l.log)
	}
	l.next(t, nil, 3)
	if want := map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v", saved, want)
	}
}

// The disk is read-only. A batch is sent as a whole and saved, its answer is lost, and the process is killed. What is
// counted after the start does not come under the same id, and the batch does not come in parts.
func TestSavedWhileTheDiskIsReadOnly(t *testing.T) {
	saved, known, most := make(map[string]int64), make(map[string]bool), 3
	l := &lives{answer: func(p part) string {
		switch {
		case known[p.id]:
			return "204 No Content"
		case len(p.counts) > most:
			return "413 Too Large"
		}
		known[p.id] = p.id != ""
		for key, n := range p.counts {
			saved[key] += n
		}
		if most == 3 {
			return "502 Bad Gateway"
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	for _, key := range []string{"a", "b", "c"} {
		store.Record(key)
	}
	readOnly(t, l.dir)
	flush()
	most = 1
	l.next(t, []string{"d"}, 3)
	if want := map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v; the log is:\n%s", saved, want, &l.log)
	}
}

// The disk is read-only. A batch is sent as a whole and saved, its answer is lost, and the process is killed. After the
// start, another batch comes in parts, and then there is no connection for this one. It comes as a whole all the same.
func TestWholeStaysWhole(t *testing.T) {
	saved, known := make(map[string]int64), make(map[string]bool)
	stuck, lost, down := true, true, false
	l := &lives{}
	l.answer = func(p part) string {
		switch {
		case known[p.id]:
			return "204 No Content"
		case p.counts["a"] > 0 && stuck:
			return "409 Conflict"
		case len(p.counts) > 1 && !lost:
			return "413 Too Large"
		}
		known[p.id] = p.id != ""
		for key, n := range p.counts {
			saved[key] += n
		}
		down = p.counts["b"] > 0
		if lost {
			return "502 Bad Gateway"
		}
		return "204 No Content"
	}
	l.dial = func() error {
		if down {
			down = false
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	store, flush, _ := l.process(t)
	store.Record("a")
	store.Record("b")
	flush()
	store.Record("c")
	store.Record("d")
	readOnly(t, l.dir)
	flush()
	stuck, lost = false, false
	l.next(t, nil, 4)
	if want := map[string]int64{"a": 1, "b": 1, "c": 1, "d": 1}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v; the log is:\n%s", saved, want, &l.log)
	}
}

// A part of the oldest batch waits for the disk for ever, and the application refuses the others as if it were busy.
// However many flushes there are, the journal has few files.
func TestPartThatWaitsMakesFewFiles(t *testing.T) {
	l := &lives{answer: func(p part) string {
		switch {
		case p.counts["a"] > 0 && p.counts["b"] > 0:
			return "413 Too Large"
		case len(p.counts) > 0:
			return "409 Conflict"
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	store.Record("a")
	store.Record("b")
	readOnly(t, l.dir)
	for range 20 {
		flush()
		store.Record("c")
	}
	if files, _ := filepath.Glob(filepath.Join(l.dir, "*")); len(files) > 6 {
		t.Errorf("the journal has %d files; the log is:\n%s", len(files), &l.log)
	}
}

// Two batches wait for the disk, which is read-only. A third one is sent as a whole and saved, its answer is lost, and the
// process is killed. What is counted after the start does not come under the same id.
func TestThirdBatchGetsNoNewHits(t *testing.T) {
	saved, known := make(map[string]int64), make(map[string]bool)
	stuck, lost := true, false
	l := &lives{answer: func(p part) string {
		switch {
		case known[p.id] || len(p.counts) == 0:
			return "204 No Content"
		case len(p.counts) == 2 && stuck:
			return "409 Conflict"
		case len(p.counts) == 2:
			return "413 Too Large"
		}
		known[p.id] = true
		for key, n := range p.counts {
			saved[key] += n
		}
		if lost {
			return "502 Bad Gateway"
		}
		return "204 No Content"
	}}
	store, flush, _ := l.process(t)
	for _, key := range []string{"a", "b"} {
		store.Record(key + "1")
		store.Record(key + "2")
		flush()
	}
	store.Record("c")
	readOnly(t, l.dir)
	stuck, lost = false, true
	flush()
	lost = false
	l.next(t, []string{"c"}, 3)
	if want := map[string]int64{"a1": 1, "a2": 1, "b1": 1, "b2": 1, "c": 2}; !maps.Equal(saved, want) {
		t.Errorf("saved %v, want %v; the log is:\n%s", saved, want, &l.log)
	}
}
