package journal

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
)

var fileName = regexp.MustCompile(`^([A-Z2-7]{26})\.(hits|tmp|damaged)$`)

// readAll reads the files that an earlier process left, and returns its batches
// as Open does.
func (j *Journal) readAll(entries []fs.DirEntry, tell func(string)) []*Batch {
	files := make(map[string]*Batch)
	for _, entry := range entries {
		name := fileName.FindStringSubmatch(entry.Name())
		switch {
		case name == nil || !entry.Type().IsRegular():
			tell(fmt.Sprintf("journal %s: %q is not a file of the journal and is left alone", j.path, entry.Name()))
		case name[2] == "tmp":
			j.remove(name[0])
		case name[2] == "hits":
			b, err := j.read(name[1])
			if err != nil {
				tell(fmt.Sprintf("%v: %s can not be read and is left alone", j.describe(err), name[0]))
				continue
			}
			files[b.ID] = b
		}
	}

	// A file that another one replaces is still there if the process died before it
	// was deleted.
	replaced := make(map[string]bool)
	for id, b := range files {
		b.replaced = slices.DeleteFunc(b.replaced, func(other string) bool {
			return files[other] == nil || other == id
		})
		for _, other := range b.replaced {
			replaced[other] = true
		}
	}
	var sent, unsent []*Batch
	for id, b := range files {
		switch {
		case replaced[id]:
			if b.damaged {
				b.remove() // It is kept aside, before the file that replaces it is removed.
			}
			b.release()
		case b.settled():
			if err := b.Remove(); err != nil {
				tell(err.Error())
			}
		case b.Progress.Sent && !b.damaged:
			sent = append(sent, b)
		default:
			unsent = append(unsent, b)
		}
	}
	return append(sent, j.mergeUnsent(unsent, tell)...)
}

// mergeUnsent writes one batch in place of those of which nothing was accepted,
// or nothing is known of what was. Without room for it they stay as they are.
func (j *Journal) mergeUnsent(batches []*Batch, tell func(string)) []*Batch {
	for len(batches) > 1 || len(batches) == 1 && batches[0].damaged {
		some := batches[:min(len(batches), maxReplaced)]
		var all []Record
		for _, b := range some {
			all = append(all, b.Records...)
		}
		all = sum(all)
		merged, err := j.Write(slices.Values(all), some...)
		if err != nil {
			tell(fmt.Sprintf("%v: files of the journal can not be merged", err))
			break
		}
		for _, b := range some {
			if b.damaged {
				tell(fmt.Sprintf("journal %s: %s.hits was damaged; %d keys were read from it, and it is kept as %s.damaged",
					j.path, b.ID, len(b.Records), b.ID))
			}
		}
		merged.Records = all
		batches = append(batches[len(some):], merged)
	}
	return slices.DeleteFunc(batches, func(b *Batch) bool {
		if b.damaged {
			tell(fmt.Sprintf("journal %s: %s.hits is damaged and is left for the next start", j.path, b.ID))
			b.release()
		}
		return b.damaged
	})
}

// sum sorts records by their keys' bytes and adds up those of the same key.
func sum(records []Record) []Record {
	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Key, b.Key) })
	n := 0
	for _, r := range records {
		if n > 0 && records[n-1].Key == r.Key {
			records[n-1].Hits = min(records[n-1].Hits+r.Hits, maxHits)
			records[n-1].Aside = records[n-1].Aside || r.Aside
			continue
		}
		records[n] = r
		n++
	}
	return records[:n]
}

// read reads a file. It fails only if the file can not be read at all.
func (j *Journal) read(id string) (*Batch, error) {
	b := j.newBatch(id)
	var err error
	if b.file, err = j.root.OpenFile(id+".hits", os.O_RDWR, 0); err == nil {
		err = b.decode(b.file)
	}
	if err != nil {
		b.release()
	}
	return b, err
}

// decode reads the contents of a file. Damage is noted, and is no error.
func (b *Batch) decode(file io.ReaderAt) error {
	header := make([]byte, headerSize)
	n, err := file.ReadAt(header, 0)
	if err != nil && err != io.EOF {
		return err
	}
	records, progress, replaced, intact := decodeHeader(header[:n], b.seed)
	inOrder, err := scan(file, b.seed, func(_ int64, _ uint64, r Record) { b.Records = append(b.Records, r) })
	found := len(b.Records)
	b.Records = sum(b.Records)
	b.Progress, b.replaced, b.records = progress, replaced, found
	b.damaged = !intact || !inOrder || found != len(b.Records) || progress.First > progress.End || progress.End > found ||
		records != uint64(found) && (records != 0 || progress != Progress{})
	return err
}

// settled reports whether there is nothing left to deliver.
func (b *Batch) settled() bool {
	return !b.damaged && b.Progress.First == len(b.Records) &&
		!slices.ContainsFunc(b.Records, func(r Record) bool { return r.Aside })
}
