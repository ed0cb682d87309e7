package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc64"
	"io"
	"slices"
)

const (
	magic          = 0x31676e6970786970
	recordsOffset  = 8
	progressOffset = 16
	checkOffset    = 24
	namesOffset    = 32
	nameSize       = 32
	headerSize     = 4096
	maxReplaced    = (headerSize - namesOffset) / nameSize

	// chunkSize is how much a file grows by. 1 MiB holds some ten thousand keys
	// and takes a millisecond or two to make.
	chunkSize = 1 << 20
	maxHits   = 1 << 48
	maxKey    = 1<<16 - 1
	asideBit  = 1 << 16
	sentBit   = 1 << 63
)

var table = crc64.MakeTable(crc64.ECMA)

func checksum(seed uint64, b []byte) uint64 { return crc64.Update(seed, table, b) }

func (p Progress) word() uint64 {
	word := uint64(p.First)<<32 | uint64(p.End)
	if p.Sent {
		word |= sentBit
	}
	return word
}

// encodeHeader returns the header of a file that replaces others and has no
// progress.
func encodeHeader(records int, replaced []string, seed uint64) []byte {
	b := make([]byte, headerSize)
	binary.NativeEndian.PutUint64(b, magic)
	binary.NativeEndian.PutUint64(b[recordsOffset:], uint64(records))
	for i, id := range replaced {
		copy(b[namesOffset+i*nameSize:], id)
	}
	binary.NativeEndian.PutUint64(b[checkOffset:], checksum(seed, b[namesOffset:]))
	return b
}

// decodeHeader reports whether b is a header that is not damaged.
func decodeHeader(b []byte, seed uint64) (records uint64, p Progress, replaced []string, ok bool) {
	if len(b) < headerSize || binary.NativeEndian.Uint64(b) != magic ||
		binary.NativeEndian.Uint64(b[checkOffset:]) != checksum(seed, b[namesOffset:headerSize]) {
		return 0, Progress{}, nil, false
	}
	for name := range slices.Chunk(b[namesOffset:headerSize], nameSize) {
		if name[0] != 0 {
			replaced = append(replaced, string(bytes.TrimRight(name, "\x00")))
		}
	}
	word := binary.NativeEndian.Uint64(b[progressOffset:])
	p = Progress{word&sentBit != 0, int(word &^ sentBit >> 32), int(uint32(word))}
	return binary.NativeEndian.Uint64(b[recordsOffset:]), p, replaced, true
}

// recordSize returns the size of a key's record in bytes.
func recordSize(key string) int { return (16 + len(key) + 7) &^ 7 }

// recordWord returns the second word of a record at an offset of the file,
// without asideBit.
func recordWord(seed uint64, offset int64, key []byte) uint64 {
	var word [8]byte
	binary.NativeEndian.PutUint64(word[:], uint64(offset))
	return checksum(checksum(seed, word[:]), key)<<17 | uint64(len(key))
}

// scan calls found for each record of a file that its checksum confirms, with
// its offset and its second word. After damage it looks for records at each
// multiple of 8. It reports whether all of the file was in order.
func scan(file io.ReaderAt, seed uint64, found func(offset int64, word uint64, r Record)) (inOrder bool, err error) {
	inOrder = true
	chunk := make([]byte, chunkSize)
	for base := int64(0); ; base += chunkSize {
		size, err := file.ReadAt(chunk, base)
		if err != nil && err != io.EOF {
			return false, err
		}
		if size == 0 {
			return inOrder, nil
		}
		at, ended := 0, false
		if base == 0 {
			at = headerSize
		}
		for at+16 <= size {
			hits, word := binary.NativeEndian.Uint64(chunk[at:]), binary.NativeEndian.Uint64(chunk[at+8:])
			key := chunk[at+16 : size]
			key = key[:min(int(word&maxKey), len(key))]
			if hits > 0 && hits <= maxHits && word != 0 && word&^asideBit == recordWord(seed, base+int64(at), key) {
				inOrder = inOrder && !ended // What was taken for the end is damage.
				r := Record{string(key), int64(hits), word&asideBit != 0}
				found(base+int64(at), word, r)
				at += recordSize(r.Key)
				continue
			}
			// What follows the end belongs to a record that was never finished.
			ended = ended || word == 0
			inOrder = inOrder && ended
			at += 8
		}
	}
}
