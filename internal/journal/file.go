package journal

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// A Record is a key of a file with its count.
type Record struct {
	Key  string
	Hits int64
}

// A File has counts. It is live, and then keys and hits are added to it, or sealed. It has one owner.
type File struct {
	ID       string   // of its counts, for the application
	Progress Progress // as it was read or stored last
	Records  []Record // sorted by the bytes of the keys; only of a sealed file that Open returned, whose caller owns them

	journal *Journal
	name    string
	seed    uint64 // the checksum of the name without its ending
	file    *os.File
	damaged bool // as it was read

	// Of a file that is or was live:
	data    []byte           // the file and the room that it may grow by, mapped
	size    int              // how much of data the disk has room for
	used    int              // how much of data has records
	offsets map[string]int64 // of the records, as they were read
	growth  chan error       // receives the result when the file has grown; nil if that is not under way
	late    time.Time        // when keys no longer wait for growth
	failed  error            // why the file could not grow
	retry   time.Time        // when to try again
}

const (
	// growSize is how much a file grows by, ahead of its use: some ten thousand keys.
	growSize = 1 << 20
	// growTime is how long keys wait for room, from when the file begins to grow. A disk that works is quicker.
	growTime = 100 * time.Millisecond
	// retryAfter is the time between two attempts to grow. Each may fill the disk for a moment.
	retryAfter = time.Second
)

// SetProgress stores the progress so that it outlives the process. The first call also writes the file to the disk, so
// that it outlives a power cut. It does nothing if f is nil, or damaged: positions would be those of readable keys.
func (f *File) SetProgress(p Progress) error {
	if f == nil || f.damaged || p == f.Progress || !p.Sent {
		return nil
	}
	err := f.write(p.encode(f.seed), progressOffset)
	if err == nil && !f.Progress.Sent { // the first time
		err = errors.Join(f.journal.sync(f.file), f.journal.sync(f.journal.dir))
	}
	if err == nil {
		f.Progress = p
	}
	return f.journal.describe(err)
}

// Lost reports whether somebody else has deleted the file or moved it away.
func (f *File) Lost() bool {
	_, err := f.journal.root.Stat(f.name + ".hits")
	return errors.Is(err, fs.ErrNotExist)
}

// Remove deletes the file, whose counts are not used any more. It renames a damaged file, for the operator.
func (f *File) Remove() error {
	defer f.release()
	return f.journal.describe(f.journal.change("remove "+f.name, func() error {
		if f.damaged {
			return f.journal.root.Rename(f.name+".hits", f.name+".damaged")
		}
		return f.journal.root.Remove(f.name + ".hits")
	}))
}

// release unmaps and closes the file.
func (f *File) release() {
	if f.growth != nil {
		<-f.growth
	}
	unmap(f.data)
	f.growth, f.data = nil, nil
	f.file.Close()
}

func (j *Journal) newFile(name string) *File {
	return &File{ID: name, journal: j, name: name, seed: checksum(0, []byte(name))}
}

// create makes a file to add keys to. A crash may leave it behind without records; the next Open deletes it then.
func (j *Journal) create() (*File, error) {
	f := j.newFile(rand.Text())
	err := j.change("create "+f.name, func() (err error) {
		if f.file, err = j.root.OpenFile(f.name+".hits", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			setNoCopyOnWrite(f.file)
			f.data, err = mapFile(f.file, maxFile)
		}
		return err
	})
	if err == nil {
		err = f.grow(0)
	}
	if err == nil {
		err = guarded(func() {
			copy(f.data[progressOffset:], Progress{}.encode(f.seed))
			binary.NativeEndian.PutUint64(f.data, magic)
		})
	}
	if err != nil {
		f.Remove()
		return nil, err
	}
	f.size, f.used = growSize, headerSize
	f.growMore()
	return f, nil
}

// growMore makes the file grow in the background.
func (f *File) growMore() {
	growth, start := make(chan error, 1), f.size
	go func() { growth <- f.grow(start) }()
	f.growth, f.late = growth, time.Now().Add(growTime)
}

// grow fills the file with zeroes from start on, as a hole has no room on the disk yet, and makes the pages writable. A
// file that somebody has cut does not grow: zeroes would take the place of its counts without a fault.
func (f *File) grow(start int) error {
	if start+growSize > maxFile {
		return syscall.EFBIG
	}
	if info, err := f.file.Stat(); err != nil || info.Size() < int64(start) {
		return cmp.Or(err, ErrFault)
	}
	if err := f.write(make([]byte, growSize), int64(start)); err != nil {
		f.file.Truncate(int64(start)) // Others need the room.
		return err
	}
	return populate(f.data[start : start+growSize])
}

var errSlow = errors.New("the disk is too slow")

// reopen maps a file of an earlier process for more keys. It returns the addresses of its counts.
func (f *File) reopen() (counts map[string]*int64, err error) {
	f.size = (f.used + growSize - 1) / growSize * growSize
	if info, err := f.file.Stat(); err != nil || info.Size() < int64(f.size) {
		return nil, errors.New("it is cut")
	}
	data, err := mapFile(f.file, maxFile)
	if err == nil {
		err = populate(data[:f.size])
	}
	if err == nil { // What follows is of a record that was never finished.
		err = guarded(func() {
			for at := f.used; at < f.size; at += pageSize - at%pageSize {
				clear(data[at : at+pageSize-at%pageSize])
			}
		})
	}
	if err != nil {
		unmap(data)
		return nil, err
	}
	counts = make(map[string]*int64, len(f.offsets))
	for key, offset := range f.offsets {
		counts[key] = (*int64)(unsafe.Pointer(&data[offset]))
	}
	f.data, f.Records, f.offsets = data, nil, nil
	f.growMore()
	return counts, nil
}

// add stores a record, and returns the address of its count. The second word, which makes it a record, is stored last.
func (f *File) add(r Record) (n *int64, err error) {
	at := f.used
	if at+recordSize(r.Key) > f.size {
		if err := f.extend(); err != nil {
			return nil, err
		}
	}
	n = (*int64)(unsafe.Pointer(&f.data[at]))
	err = guarded(func() {
		*n = r.Hits
		key := f.data[at+16 : at+16+len(r.Key)]
		copyByPage(key, at+16, r.Key)
		word := recordWord(f.seed, int64(at), key)
		atomic.StoreUint64((*uint64)(unsafe.Pointer(&f.data[at+8])), word)
	})
	f.used += recordSize(r.Key)
	return n, err
}

// copyByPage copies a key to an offset of the file, page by page. A store to two pages at once may never end on a btrfs
// that is full: there, the kernel writes the one back before it makes the other one writable.
func copyByPage(to []byte, offset int, key string) {
	for len(key) > 0 {
		n := copy(to[:min(len(to), pageSize-offset%pageSize)], key)
		to, key, offset = to[n:], key[n:], offset+n
	}
}

// extend takes the room that the file has grown by. It waits until late at most, unless the Journal is patient.
func (f *File) extend() (err error) {
	if f.growth == nil {
		if time.Now().Before(f.retry) {
			return f.failed
		}
		f.growMore()
	}
	var late <-chan time.Time
	if len(f.growth) == 0 && !f.journal.Patient {
		late = time.After(time.Until(f.late))
	}
	select {
	case err = <-f.growth:
	case <-late:
		return cmp.Or(f.failed, errSlow)
	}
	if f.growth, f.failed = nil, err; err != nil {
		f.retry = time.Now().Add(retryAfter)
		return err
	}
	f.size += growSize
	f.growMore()
	return nil
}

// Add adds hits to a count, whose address a Journal has returned. It reports whether the disk has the page: it may
// have no room for a copy of the page, or the file was cut.
func Add(n *int64, hits int64) bool { return guarded(func() { *n += hits }) == nil }

// Load returns a count, and whether the disk has its page.
func Load(n *int64) (hits int64, ok bool) {
	err := guarded(func() { hits = *n })
	return hits, err == nil
}

// ErrFault is the error of a fault in mapped memory.
var ErrFault = errors.New("the disk can not provide a page of a file")

// guarded calls do, which uses mapped memory. A fault there, which would end the process (SIGBUS), is an error.
func guarded(do func()) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(interface{ Addr() uintptr }); !ok {
				panic(r)
			}
			err = ErrFault
		}
	}()
	do()
	return nil
}

// read reads the contents of a file. Damage is noted, and is no error: the readable keys get another id, since they
// may be other counts than those that were sent. It is the same one after each start, unless the damage grows.
func (f *File) read() error {
	header, err := readHeader(f.file)
	if err != nil {
		return err
	}
	f.offsets, f.used = make(map[string]int64), headerSize
	inOrder, err := scan(f.file, f.seed, func(offset int64, r Record) {
		if f.used = int(offset) + recordSize(r.Key); r.Hits > 0 {
			f.offsets[r.Key] = offset
			f.Records = append(f.Records, r)
		}
	})
	if len(f.Records) == 0 && inOrder { // It was never used.
		return err
	}
	slices.SortFunc(f.Records, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	var intact bool
	f.Progress, intact = decodeProgress(header[progressOffset:], f.seed, len(f.Records))
	if !intact || !inOrder || binary.NativeEndian.Uint64(header) != magic {
		f.damaged, f.Progress = true, Progress{}
		id := sha256.New()
		for _, r := range f.Records {
			fmt.Fprintf(id, "%s %q %d\n", f.name, r.Key, r.Hits)
		}
		f.ID = base32.StdEncoding.EncodeToString(id.Sum(nil))[:len(f.name)]
	}
	return err
}

// readHeader returns the header of a file, zeroes if the file was never used, or an error if it is of another format.
func readHeader(file *os.File) ([]byte, error) {
	header := make([]byte, headerSize)
	if _, err := file.ReadAt(header, 0); err != nil && err != io.EOF {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	switch word := binary.NativeEndian.Uint64(header); {
	case word == magic1:
		return nil, errors.New("it is of version 1.1.0; start that version with the application up, and stop it")
	case word != magic && (word != 0 || info.Size() > maxGap):
		return nil, errors.New("it is of another format; start the version that wrote it, and stop it")
	}
	return header, nil
}

func (f *File) write(data []byte, offset int64) error {
	return f.journal.change("write "+f.name, func() error {
		_, err := f.file.WriteAt(data, offset)
		if errors.Is(err, syscall.EBADF) { // Open could open it for reading only.
			return syscall.EROFS
		}
		return err
	})
}
