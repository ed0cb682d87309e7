package journal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc64"
	"io"
)

const (
	magic          = 0x32676e6970786970
	magic1         = 0x31676e6970786970 // of version 1.1.0
	progressOffset = 8
	headerSize     = progressOffset + 6*8

	maxHits = 1 << 48
	maxKey  = 1<<16 - 1
	// maxGap is how many bytes without a record scan reads in a row. A power cut damages fewer; a hole may be larger.
	maxGap = 64 << 20
	// pageSize is the size of a page, or a part of it: no system has smaller ones.
	pageSize = 4 << 10
	// maxFile is how large a file may grow: more than all keys take. The addresses for that are reserved.
	maxFile = 1 << (28 + 4*(^uint(0)>>63))
)

// Progress is how far a batch is delivered. hits.Batch says what the positions are; the journal only stores them.
type Progress struct {
	Sent      bool // the batch was sent at least once, or was going to be
	First     int  // the keys before it are done with
	From, End int  // the part that is being sent; none if they are equal
	Skip      int  // the key at this position is done with as well; none if it is 0
	Doubt     bool // the application may have saved the part
}

var table = crc64.MakeTable(crc64.ECMA)

func checksum(seed uint64, b []byte) uint64 { return crc64.Update(seed, table, b) }

// encode returns the progress as it follows the magic in the header.
func (p Progress) encode(seed uint64) []byte {
	sent := 0
	switch {
	case p.Doubt:
		sent = 2
	case p.Sent:
		sent = 1
	}
	var b []byte
	for _, word := range []int{sent, p.First, p.From, p.End, p.Skip} {
		b = binary.NativeEndian.AppendUint64(b, uint64(word))
	}
	return binary.NativeEndian.AppendUint64(b, checksum(seed, b))
}

// decodeProgress reports whether b is the progress of a file of so many records.
func decodeProgress(b []byte, seed uint64, records int) (p Progress, ok bool) {
	word := func(i int) int { return int(binary.NativeEndian.Uint64(b[i*8:])) }
	p = Progress{word(0) > 0, word(1), word(2), word(3), word(4), word(0) == 2}
	ok = binary.NativeEndian.Uint64(b[5*8:]) == checksum(seed, b[:5*8]) &&
		0 <= p.First && p.First <= p.From && p.From <= p.End && p.End <= records &&
		0 <= p.Skip && p.Skip < max(records, 1)
	return p, ok
}

// recordSize returns the size of a key's record in bytes.
func recordSize(key string) int { return (16 + len(key) + 7) &^ 7 }

// recordWord returns the second word of a record at an offset of the file.
func recordWord(seed uint64, offset int64, key []byte) uint64 {
	var word [8]byte
	binary.NativeEndian.PutUint64(word[:], uint64(offset))
	return checksum(checksum(seed, word[:]), key)<<17 | uint64(len(key))
}

// scan calls found for each record whose checksum is right. It reports whether no damage comes before or between records.
func scan(file io.ReaderAt, seed uint64, found func(offset int64, r Record)) (inOrder bool, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(file, headerSize, 1<<62), 4*maxKey)
	ended, damaged := false, false
	for at, gap := int64(headerSize), 0; gap < maxGap; {
		b, err := r.Peek(16 + maxKey)
		if err != nil && err != io.EOF {
			return false, err
		}
		if len(b) < 16 {
			break
		}
		hits, word := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
		key, step := b[16:][:min(int(word&maxKey), len(b)-16)], 8
		if hits <= maxHits && word != 0 && word == recordWord(seed, at, key) {
			damaged = damaged || ended // What was taken for the end is damage.
			found(at, Record{string(key), int64(hits)})
			step, gap = recordSize(string(key)), 0
		} else {
			// What follows the end belongs to a record that was never finished.
			ended = ended || word == 0
			damaged = damaged || !ended
			step = max(step, (len(b)-len(bytes.TrimLeft(b, "\x00")))&^7-8) // Zeroes are skipped.
			gap += step
		}
		r.Discard(step)
		at += int64(step)
	}
	return !damaged, nil
}
