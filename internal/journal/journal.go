// Package journal keeps counts in files that are mapped into memory, so that
// they outlive the process: a hit stays one addition in memory, and the kernel
// holds what was added even if the process is killed at the next instruction.
// The original has nothing like it.
//
// A file is a batch. Open returns the batches that an earlier process left. Add
// appends a new key to the live file and returns the address of its count. Take
// freezes the live file and hands it over as a Batch, and the next file becomes
// the live one. A Batch is removed when its counts were accepted, or replaced
// by one that Write writes as a whole, such as the sum of two.
//
// # Files
//
// A journal is a directory that is locked with flock while it is in use. The
// names of its files begin with the id of the batch, 26 random letters from A
// to Z and digits from 2 to 7:
//
//	id.hits     a batch
//	id.tmp      a file that is being made; it is deleted at the start
//	id.damaged  a batch that was damaged, after its readable keys were moved to another file; it is not read again
//
// A batch is a header of 4,096 bytes and then records. Numbers are 64-bit words
// in the byte order of the machine.
//
//	offset  header
//	0       0x31676e6970786970, which is "pixping1" on a little-endian machine
//	8       the number of records; 0 while keys are added
//	16      the progress: the highest bit is set before the batch is sent for the first time; the next 31 bits are how
//	        many keys are done with (accepted or set aside), and the lower 32 bits how many will be after the part under
//	        way, both in the order in which they are sent
//	24      the checksum of the words from 32 to the end of the header
//	32      the ids of up to 127 files that this one replaces, each in 32 bytes that end with zeroes, then zeroes; files
//	        that are named here are not read, and are deleted
//
//	offset  record, at a multiple of 8
//	0       the count, from 1 to 2^48
//	8       bits 0 to 15: the length of the key in bytes; bit 16: the key is set aside; bits 17 to 63: the lower 47 bits
//	        of the checksum of the record's offset in the file, as a word, and the key
//	16      the key, then zeroes up to a multiple of 8
//
// A checksum is the CRC-64 (ECMA-182, as in xz) of the file's id followed by
// what is said above. No client knows the id, so no client can make a key that
// looks like the record of another key.
//
// No record crosses a multiple of 1 MiB. Where the word at 8 is zero, no record
// follows before the next such multiple. This word is stored last, so that a
// record that can be seen is whole.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"
)

const (
	// maxWait is how long Add waits for what is made ahead. All other hits wait
	// meanwhile.
	maxWait = 4 * time.Millisecond
	// readyWait is how long Prepare waits: longer than a file takes to make on
	// a busy machine, short beside the time for a stop.
	readyWait = time.Second
	// retryAfter is the time between two attempts to make a file or a chunk.
	// Each may fill the disk for a moment.
	retryAfter = time.Second
)

// A Journal is a directory of files. The caller holds a lock around Add, Take
// and Close, which must not run at the same time. Write and the methods of
// batches need no lock.
type Journal struct {
	path   string
	root   *os.Root
	dir    *os.File                // locked
	before func(step string) error // nil but in tests; called before each change of the disk, which an error prevents

	ready  chan *Batch // the next live file, made ahead
	closed chan struct{}
	ended  chan struct{} // closed when no more files are made

	following *Batch                // what Prepare has found
	live      *Batch                // nil while there is none
	late      bool                  // Add has waited in vain, and does not wait again until it finds something ready
	cause     atomic.Pointer[error] // why the last attempt to make something ahead failed
}

// Open locks the directory, creates it if it is missing, and reads what an
// earlier process left there. It returns first the batches that were sent
// before, each with its id and progress, and then those that never were, merged
// into one unless there is no room for it. The caller owns the batches. Open
// calls tell with one line for each file that is damaged or is not the
// journal's, and if the disk is full; none of these is an error. An error says
// in one line that another process uses the directory, or why no file can be
// made in it.
func Open(path string, tell func(line string)) (*Journal, []*Batch, error) {
	return open(path, tell, nil)
}

func open(path string, tell func(string), before func(step string) error) (*Journal, []*Batch, error) {
	j := &Journal{path: path, before: before}
	j.ready, j.closed, j.ended = make(chan *Batch), make(chan struct{}), make(chan struct{})
	var entries []fs.DirEntry
	err := j.lock()
	if err == nil {
		entries, err = os.ReadDir(path)
	}
	if err == nil {
		var failed error
		if j.live, failed = j.create(); isFull(failed) {
			j.cause.Store(&failed)
			tell(fmt.Sprintf("%v; new keys are counted in memory only", j.describe(failed)))
		} else {
			err = failed
		}
	}
	if err != nil {
		j.unlock()
		return nil, nil, j.describe(err)
	}
	batches := j.readAll(entries, tell)
	discard := func(b *Batch) {
		b.freeze()
		b.Remove()
	}
	go makeAhead(j, j.ready, j.create, discard, j.closed, j.ended)
	return j, batches, nil
}

// lock creates the directory if it is missing, and locks it.
func (j *Journal) lock() (err error) {
	if errSystem != nil {
		return errSystem
	}
	made := os.Mkdir(j.path, 0o700)
	if j.root, err = os.OpenRoot(j.path); err != nil {
		if made != nil && !errors.Is(made, fs.ErrExist) {
			return made
		}
		return err
	}
	if j.dir, err = j.root.Open("."); err != nil {
		return err
	}
	return lock(j.dir)
}

func (j *Journal) unlock() {
	if j.root != nil {
		j.dir.Close()
		j.root.Close()
	}
}

// Add appends key, which the live file does not hold yet, with a count of at
// least 1, and returns the address of the count. The caller may add to the
// count until Take, and may read it until the batch is removed or replaced. Add
// keeps no reference to key, and waits at most 5 ms for the disk. An error says
// why there is no room now; the caller then counts the key in memory.
func (j *Journal) Add(key string, hits int64) (*int64, error) {
	if len(key) > maxKey {
		return nil, j.describe(errLongKey)
	}
	if j.live == nil {
		if j.live = next(j, j.ready); j.live == nil {
			return nil, j.reason()
		}
	}
	b := j.live
	if b.used+recordSize(key) > chunkSize {
		chunk := next(j, b.spare)
		if chunk == nil {
			return nil, j.reason()
		}
		b.chunks = append(b.chunks, chunk)
		b.used = 0
	}
	last := len(b.chunks) - 1
	return b.put(b.chunks[last], int64(last)*chunkSize, Record{Key: key, Hits: hits}), nil
}

var errLongKey = fmt.Errorf("a key is longer than %d bytes", maxKey)

// next returns what was made ahead, or nil if nothing comes within maxWait. As all
// hits wait meanwhile, next does not wait again after that until something comes.
func next[T *Batch | []byte](j *Journal, made <-chan T) (v T) {
	if j.late {
		select {
		case v = <-made:
			j.late = false
		default:
		}
		return v
	}
	select {
	case v = <-made:
	case <-time.After(maxWait):
		j.late = true
	}
	return v
}

// reason says why nothing that is made ahead lies ready.
func (j *Journal) reason() error {
	if err := j.cause.Load(); err != nil {
		return j.describe(*err)
	}
	return j.describe(errors.New("the disk is too slow"))
}

// Prepare waits until Take finds a file to go on with, for a second at most. It
// is called before Take, without the lock. Two calls of Prepare, Take and Close
// must not run at the same time.
func (j *Journal) Prepare() {
	if j.following == nil {
		select {
		case j.following = <-j.ready:
		case <-time.After(readyWait):
		}
	}
}

// Take freezes the live file and returns it, or nil if it has no key. Take
// needs constant time and does not wait for the disk. The caller owns the
// batch. Add goes on with the file that Prepare has found, or looks for one.
func (j *Journal) Take() *Batch {
	b := j.live
	if b == nil || b.records == 0 {
		return nil
	}
	b.freeze()
	j.live, j.following = j.following, nil
	return b
}

// Close ends the use of the journal and unlocks the directory. The live file
// stays if it has a key. The counts that Add returned for it must not be used
// any more.
func (j *Journal) Close() error {
	defer j.unlock()
	close(j.closed)
	<-j.ended
	for _, b := range []*Batch{j.live, j.following} {
		if b == nil {
			continue
		}
		b.freeze()
		if b.records > 0 {
			b.release()
		} else if err := b.Remove(); err != nil {
			return err
		}
	}
	return nil
}

// makeAhead makes one thing after the other and sends each to made, which has no
// buffer: so one lies ready at any time. When stop is closed, makeAhead discards what
// lies ready and closes stopped.
func makeAhead[T *Batch | []byte](
	j *Journal, made chan<- T, makeOne func() (T, error), discard func(T), stop <-chan struct{}, stopped chan<- struct{},
) {
	defer close(stopped)
	for {
		v, err := makeOne()
		if err != nil {
			j.cause.Store(&err)
			select {
			case <-time.After(retryAfter):
				continue
			case <-stop:
				return
			}
		}
		select {
		case made <- v:
		case <-stop:
			discard(v)
			return
		}
	}
}

// describe returns err, which may be nil, in one line that names the directory.
// It takes off what an error of the file system says of the call and of the
// path.
func (j *Journal) describe(err error) error {
	if of, ok := errors.AsType[*fs.PathError](err); ok {
		err = of.Err
	} else if of, ok := errors.AsType[*os.LinkError](err); ok {
		err = of.Err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %w", j.path, err)
}
