// Package journal keeps counts in files that are mapped into memory, so that they outlive the process: a hit stays one
// addition in memory, and the kernel holds what was added. The original has nothing like it.
//
// There is one live file, to which keys and hits are added. Once it is sealed, its counts do not change any more. It is
// delivered as it is, under its id, and deleted. No count ever moves from one file to another.
//
// # Files
//
// A journal is a directory that is locked with flock while it is in use. A file's name is its id, 26 random letters
// from A to Z and digits from 2 to 7, and .hits, or .damaged if it is kept for the operator. A file is a header and
// then records. Numbers are 64-bit words in the byte order of the machine.
//
//	offset  header
//	0       0x32676e6970786970, which is "pixping2" on a little-endian machine
//	8       the progress: five words, see Progress; the first one is 1 once the file is sent, 2 if a part is in doubt
//	48      the checksum of the progress
//
//	offset  record, at a multiple of 8
//	0       the count, at most 2^48; 0 if the key was set aside before the file was sent
//	8       bits 0 to 15: the length of the key in bytes; bit 16: 0; bits 17 to 63: the lower 47 bits of the checksum of
//	        the record's offset in the file, as a word, and the key; where the whole word is zero, no record follows
//	16      the key, then zeroes up to a multiple of 8
//
// The word at 8 is stored last: a record that can be seen is whole. A checksum is the CRC-64 (ECMA-182, as in xz) of
// the file's id and then what is said above. No client knows the id, so none can make a key that looks like a record.
package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// A Journal is a directory of files. Add, Seal and Close must not run at the same time; the other methods need no lock.
type Journal struct {
	Patient bool // Add waits for the disk, as there are no more hits
	path    string
	root    *os.Root
	dir     *os.File                // locked
	before  func(step string) error // nil but in tests; called before each change of the disk, which an error prevents

	live, next           *File // nil if there is none
	failure, nextFailure error // why there is no live file, and no next one
}

// Open locks the directory, creates it if it is missing, and reads what an earlier process left there. Its live file is
// live again, with the counts in live; the others are sealed. Open calls tell with a line for each file that is damaged
// or left alone, and if the disk is full. It fails if another process uses the directory, or if no file can be made.
func Open(path string, tell func(line string)) (j *Journal, live map[string]*int64, sealed []*File, err error) {
	return open(path, tell, nil)
}

func open(
	path string, tell func(string), before func(string) error,
) (j *Journal, live map[string]*int64, sealed []*File, err error) {
	j = &Journal{path: path, before: before}
	if err = j.lock(); err == nil {
		live, sealed, err = j.readAll(tell)
	}
	if err == nil && j.live == nil {
		if j.live, err = j.create(); isFull(err) {
			j.failure, err = err, nil
			tell(fmt.Sprintf("%v; new keys are counted in memory only", j.describe(j.failure)))
		}
	}
	if err != nil {
		j.unlock()
		return nil, nil, nil, j.describe(err)
	}
	return j, live, sealed, nil
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

var fileName = regexp.MustCompile(`^([A-Z2-7]{26})\.(hits|damaged)$`)

// readAll reads the files of an earlier process.
func (j *Journal) readAll(tell func(string)) (live map[string]*int64, sealed []*File, err error) {
	entries, err := os.ReadDir(j.path)
	if err != nil {
		return nil, nil, err
	}
	live = make(map[string]*int64)
	for _, entry := range entries {
		name := fileName.FindStringSubmatch(entry.Name())
		if name == nil || !entry.Type().IsRegular() {
			tell(fmt.Sprintf("journal %s: %q is not a file of the journal and is left alone", j.path, entry.Name()))
			continue
		}
		if name[2] == "damaged" {
			continue
		}
		f := j.newFile(name[1])
		if f.file, err = j.root.OpenFile(name[0], os.O_RDWR, 0); errors.Is(err, syscall.EROFS) {
			f.file, err = j.root.Open(name[0])
		}
		if err == nil {
			err = f.read()
		}
		switch {
		case err != nil:
			tell(leftAlone(j.path, name[0], err))
			f.release()
			continue
		case f.damaged:
			tell(fmt.Sprintf("journal %s: %s is damaged; %d keys were read from it, and it will be kept as %s.damaged",
				j.path, name[0], len(f.Records), name[1]))
		case !f.Progress.Sent && j.live == nil && len(f.Records) > 0:
			if counts, err := f.reopen(); err == nil {
				j.live, live = f, counts
				continue
			}
		}
		if f.Progress.First < len(f.Records) {
			f.offsets, sealed = nil, append(sealed, f)
		} else if err := f.Remove(); err != nil { // Nothing is left to deliver.
			tell(err.Error())
		}
	}
	return live, sealed, nil
}

func leftAlone(path, name string, err error) string {
	return fmt.Sprintf("journal %s: %s is left alone: %v", path, name, bare(err))
}

// Check reports in one line why Open would not be able to use the directory, as far as that can be said without a
// change on the disk and without the lock. A directory that is missing is made by Open, which needs its parent. An
// empty path is no error. Check calls tell with a line for each file that Open would leave alone for its format.
func Check(path string, tell func(line string)) error {
	if path == "" {
		return nil
	}
	err := writable(path + "/.")
	if errors.Is(err, fs.ErrNotExist) {
		err = writable(filepath.Dir(filepath.Clean(path)))
	} else if isFull(err) {
		err = nil // Open can do without.
	}
	names, _ := fs.Glob(os.DirFS(path), "*.hits")
	for _, name := range names {
		file, err := os.OpenFile(filepath.Join(path, name), os.O_RDONLY|syscall.O_NONBLOCK, 0) // It may be a pipe.
		if err == nil {
			_, err = readHeader(file)
			file.Close()
		}
		if err != nil {
			tell(leftAlone(path, name, err))
		}
	}
	return (&Journal{path: path}).describe(err)
}

// Add appends key, which the live file does not hold yet, with a count of at least 1. It returns the count's address, for
// the functions Add and Load until the file is removed, or why there is no room. It keeps no reference to key.
func (j *Journal) Add(key string, hits int64) (*int64, error) {
	if len(key) > maxKey {
		return nil, j.describe(fmt.Errorf("a key is longer than %d bytes", maxKey))
	}
	if j.live == nil {
		return nil, j.describe(j.failure)
	}
	n, err := j.live.add(Record{key, hits})
	return n, j.describe(err)
}

// Prepare makes the file that follows the live one. It is called before Seal, without the lock.
func (j *Journal) Prepare() {
	if j.next == nil {
		j.next, j.nextFailure = j.create()
	}
}

// Seal ends the live file and returns it, or nil if it has no key. The file that Prepare has made is live then.
func (j *Journal) Seal() *File {
	f := j.live
	if f != nil && f.used == headerSize {
		return nil
	}
	j.live, j.failure, j.next = j.next, j.nextFailure, nil
	return f
}

// Close ends the use of the journal and unlocks the directory. It is called after Seal: what has counts stays.
func (j *Journal) Close() {
	for _, f := range []*File{j.live, j.next} {
		if f != nil {
			f.Remove() // If that fails, the next Open does it.
		}
	}
	j.unlock()
}

// Fault returns ErrFault with the directory.
func (j *Journal) Fault() error { return j.describe(ErrFault) }

// describe returns err, which may be nil, in one line that names the directory.
func (j *Journal) describe(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("journal %s: %w", j.path, bare(err))
}

// bare takes off what an error of the file system says of the call and of the path.
func bare(err error) error {
	if of, ok := errors.AsType[*fs.PathError](err); ok {
		return of.Err
	} else if of, ok := errors.AsType[*os.LinkError](err); ok {
		return of.Err
	}
	return err
}

// change makes a change of the disk, unless a test prevents it.
func (j *Journal) change(step string, do func() error) error {
	if j.before != nil {
		if err := j.before(step); err != nil {
			return err
		}
	}
	return do()
}

func (j *Journal) sync(file *os.File) error { return j.change("sync "+file.Name(), file.Sync) }
