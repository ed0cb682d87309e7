package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"iter"
	"os"
	"sync/atomic"
	"unsafe"
)

// A Record is a key of a batch with its count.
type Record struct {
	Key   string
	Hits  int64
	Aside bool // see SetAside
}

// Progress says how far a batch was delivered. First and End are positions in the
// order in which the keys are sent, which is not that of Records: the smallest
// keys come first, see endpoint.Batch. The journal only stores them.
type Progress struct {
	Sent  bool // it was sent at least once, or was going to be
	First int  // how many keys are done with: accepted, set aside or dropped
	End   int  // the end of the part under way, which begins with First
}

// A Batch is a file to which no more hits are added. It has one owner, who
// calls its methods one at a time.
type Batch struct {
	ID       string   // 26 letters and digits, 130 random bits
	Progress Progress // as it was read or stored last; SetProgress changes it
	Records  []Record // sorted by the bytes of the keys; only of a batch that Open returned

	journal *Journal
	seed    uint64 // the checksum of the id
	file    *os.File
	records int
	used    int // bytes of the last chunk

	// Only while keys are added, and until the batch is removed or replaced:
	chunks [][]byte      // the file, mapped
	spare  chan []byte   // the next chunk, made ahead
	frozen chan struct{} // closed when no more keys are added
	grown  chan struct{} // closed when no more chunks are made

	replaced []string // the ids of files that this one replaces and that may still be there
	damaged  bool     // as it was read
}

// SetProgress stores the progress so that it outlives the process. The first call
// that says that the batch was sent also writes the batch to the disk, so that it
// outlives a power cut, and takes as long as the disk does. It is called before the
// batch is sent.
func (b *Batch) SetProgress(p Progress) error {
	// The number of records goes along: the file has none yet if the process that added
	// the keys was killed.
	words := binary.NativeEndian.AppendUint64(nil, uint64(b.records))
	err := b.write(binary.NativeEndian.AppendUint64(words, p.word()), recordsOffset)
	if err == nil && p.Sent && !b.Progress.Sent {
		err = errors.Join(b.sync(b.file), b.sync(b.journal.dir))
	}
	if err == nil {
		b.Progress = p
	}
	return b.journal.describe(err)
}

// SetAside marks the keys for which aside returns true: they were refused
// alone, and are to be sent later than the others. It is called before the
// progress moves past them.
func (b *Batch) SetAside(aside func(key string) bool) error {
	var failed error
	_, err := scan(b.file, b.seed, func(offset int64, word uint64, r Record) {
		if failed == nil && aside(r.Key) {
			failed = b.write(binary.NativeEndian.AppendUint64(nil, word|asideBit), offset+8)
		}
	})
	return b.journal.describe(errors.Join(failed, err))
}

// Lost reports whether somebody else has deleted the batch's file, perhaps with the
// directory: the next Open will not return the batch.
func (b *Batch) Lost() bool { return isDeleted(b.file) }

// Remove deletes the batch after its counts were accepted or dropped. With an
// error or without, the batch and the counts that Add returned for it must not
// be used any more; with an error, the next Open returns the batch again.
func (b *Batch) Remove() error {
	defer b.release()
	return b.journal.describe(b.remove())
}

// remove deletes the files that b replaces first: without b, the next Open would
// read them again.
func (b *Batch) remove() error {
	for _, id := range b.replaced {
		if err := b.journal.remove(id + ".hits"); err != nil {
			return err
		}
	}
	if len(b.replaced) > 0 {
		if err := b.sync(b.journal.dir); err != nil {
			return err
		}
		b.replaced = nil
	}
	if b.damaged {
		return b.journal.rename(b.ID+".hits", b.ID+".damaged")
	}
	return b.journal.remove(b.ID + ".hits")
}

// release unmaps and closes the file.
func (b *Batch) release() {
	if b.grown != nil {
		<-b.grown
	}
	for _, chunk := range b.chunks {
		unmap(chunk)
	}
	b.chunks = nil
	b.file.Close()
}

// Write writes a new batch, with a new id and no progress, that replaces the
// old ones: if the process dies, the next Open returns either the old ones or
// the new one. No key may come twice. Write removes the old batches, which must
// not be used any more. With an error nothing has changed.
func (j *Journal) Write(records iter.Seq[Record], old ...*Batch) (*Batch, error) {
	b, err := j.newFile(func(b *Batch) error {
		err := b.writeAll(records, old)
		if err == nil {
			err = b.sync(b.file)
		}
		return err
	})
	if err != nil {
		return nil, j.describe(err)
	}
	// What can not be deleted now is deleted when b is.
	err = b.sync(j.dir)
	for _, o := range old {
		if err == nil {
			err = o.remove()
		}
		o.release()
	}
	if err == nil {
		b.replaced = nil
	}
	return b, nil
}

// writeAll fills a new file with records, and with a header that names the old ones.
func (b *Batch) writeAll(records iter.Seq[Record], old []*Batch) error {
	chunk, base := make([]byte, chunkSize), int64(0)
	b.used = headerSize
	for r := range records {
		if len(r.Key) > maxKey {
			return errLongKey
		}
		if b.used+recordSize(r.Key) > chunkSize {
			if err := b.write(chunk, base); err != nil {
				return err
			}
			clear(chunk)
			base += chunkSize
			b.used = 0
		}
		b.put(chunk, base, r)
	}
	if err := b.write(chunk[:b.used], base); err != nil {
		return err
	}
	for _, o := range old {
		b.replaced = append(append(b.replaced, o.replaced...), o.ID)
	}
	if len(b.replaced) > maxReplaced {
		return errors.New("too many files")
	}
	return b.write(encodeHeader(b.records, b.replaced, b.seed), 0)
}

// create makes a file for new keys.
func (j *Journal) create() (*Batch, error) {
	b, err := j.newFile(func(b *Batch) error {
		chunk, err := b.mapChunk(0)
		if err == nil {
			b.chunks = [][]byte{chunk}
			b.used = copy(chunk, encodeHeader(0, nil, b.seed))
		}
		return err
	})
	if err == nil {
		b.spare, b.frozen, b.grown = make(chan []byte), make(chan struct{}), make(chan struct{})
		end := int64(chunkSize)
		grow := func() (chunk []byte, err error) {
			if chunk, err = b.mapChunk(end); err == nil {
				end += chunkSize
			}
			return chunk, err
		}
		go makeAhead(j, b.spare, grow, unmap, b.frozen, b.grown)
	}
	return b, err
}

// newFile makes a file with a new id. The file gets its name when fill has
// filled it.
func (j *Journal) newFile(fill func(b *Batch) error) (*Batch, error) {
	b := j.newBatch(rand.Text())
	temporary := b.ID + ".tmp"
	err := j.change("create "+temporary, func() (err error) {
		b.file, err = j.root.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err == nil {
		err = fill(b)
	}
	if err == nil {
		err = j.rename(temporary, b.ID+".hits")
	}
	if err != nil {
		b.release()
		j.remove(temporary)
		return nil, err
	}
	return b, nil
}

func (j *Journal) newBatch(id string) *Batch {
	return &Batch{ID: id, journal: j, seed: checksum(0, []byte(id))}
}

// mapChunk appends a chunk to the file and maps it. Chunks are mapped one by
// one, since mapping the whole file again would move the counts. A chunk is
// filled with zeroes first: if it were a hole in the file, a hit that finds the
// disk full would kill the process. At last the kernel makes its pages
// writable, so that no hit has to wait for that.
func (b *Batch) mapChunk(offset int64) ([]byte, error) {
	err := b.write(make([]byte, chunkSize), offset)
	if err != nil {
		b.file.Truncate(offset) // Others need the room.
		return nil, err
	}
	chunk, err := mapFile(b.file, offset, chunkSize)
	if err != nil {
		return nil, err
	}
	if err = populate(chunk); err != nil {
		unmap(chunk)
		return nil, err
	}
	return chunk, nil
}

// freeze ends the adding of keys.
func (b *Batch) freeze() {
	close(b.frozen)
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&b.chunks[0][recordsOffset])), uint64(b.records))
}

// put stores a record in a chunk that begins at offset base of the file, and
// returns the address of its count. A reader sees the record when its second
// word is stored, which is last.
func (b *Batch) put(chunk []byte, base int64, r Record) *int64 {
	at := b.used
	n := (*int64)(unsafe.Pointer(&chunk[at]))
	*n = r.Hits
	word := recordWord(b.seed, base+int64(at), chunk[at+16:][:copy(chunk[at+16:], r.Key)])
	if r.Aside {
		word |= asideBit
	}
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&chunk[at+8])), word)
	b.used += recordSize(r.Key)
	b.records++
	return n
}

func (b *Batch) write(data []byte, offset int64) error {
	return b.journal.change("write "+b.ID, func() error {
		_, err := b.file.WriteAt(data, offset)
		return err
	})
}

func (b *Batch) sync(file *os.File) error { return b.journal.change("sync "+file.Name(), file.Sync) }

func (j *Journal) rename(from, to string) error {
	return j.change("rename "+from, func() error { return j.root.Rename(from, to) })
}

// remove deletes a file, if it is there.
func (j *Journal) remove(name string) error {
	err := j.change("remove "+name, func() error { return j.root.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
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
