package hits

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"pixel-ping/internal/journal"
)

// A part is counts that wait in the Store for their delivery. Without a journal,
// counts that come back after a failure are added to those of new hits. With one they
// stay apart until Take writes the sum of all to a new file: if they were added to the
// file that new hits go to, a crash could count them twice.
type part struct {
	counts Counts
	file   *journal.Batch // has the counts; nil if they are in memory only
	sent   bool           // an earlier process has sent it, so it must be sent again as it is
	rest   bool           // some of the file is delivered; counts are the rest
}

// Open returns a Store as NewStore does. Unless dir is empty, the Store keeps its
// counts in the journal in that directory, and begins with those that an earlier
// process left there. Open calls tell with a line about each of the journal's files
// that cannot be used. Its errors are those of journal.Open.
//
// With a journal, only Record, Full, Refused, Pending, Stats and JournalError may be called
// by many goroutines at once.
func Open(limit int64, dir string, tell func(line string)) (*Store, error) {
	s := NewStore(limit)
	if dir == "" {
		return s, nil
	}
	j, batches, err := journal.Open(dir, tell)
	if err != nil {
		return nil, err
	}
	s.journal, s.loose, s.Aside = j, make(Counts), make(map[string]bool)
	for _, b := range batches {
		p := part{counts: make(Counts, len(b.Records)), file: b, sent: b.Progress.Sent}
		for i, r := range b.Records {
			p.counts[r.Key] = &b.Records[i].Hits
			if r.Aside && !p.sent {
				s.Aside[r.Key] = true
			}
		}
		s.pending += p.counts.Hits()
		s.held += p.counts.cost()
		s.waiting = append(s.waiting, p)
	}
	return s, nil
}

// ID returns the id of the batch that was taken. After a crash, the same counts have
// the same id. Other counts never have it: what is left of a batch gets a new id.
func (s *Store) ID() string {
	if s.batch.file == nil || s.batch.rest {
		return rand.Text()
	}
	return s.batch.file.ID
}

// Keeps reports whether the Store has a journal.
func (s *Store) Keeps() bool { return s.journal != nil }

// Waiting returns how many hits of how many keys wait for the next call of Take or a
// later one. Before the first call of Take, they are what an earlier process left.
// After a call, they are what could not become part of the batch that was taken.
func (s *Store) Waiting() (hits int64, keys int) {
	sum := make(Counts)
	for _, p := range s.waiting {
		sum.add(p.counts)
	}
	return sum.Hits(), len(sum)
}

// Sent returns the file of the batch that was taken if an earlier process has sent
// it, and else nil. The batch must be sent again as it is, from the progress and the
// records of the file.
func (s *Store) Sent() *journal.Batch {
	if !s.batch.sent {
		return nil
	}
	return s.batch.file
}

// JournalError returns what went wrong in the journal since its last call, or nil.
func (s *Store) JournalError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.failure
	s.failure = nil
	return err
}

// fail notes an error, unless err is nil, for JournalError. It is called with the
// lock held.
func (s *Store) fail(err error, consequence string) {
	if err != nil {
		s.failure = fmt.Errorf("%w; %s", err, consequence)
	}
}

// failUnlocked is fail without the lock held.
func (s *Store) failUnlocked(err error, consequence string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err, consequence)
}

// addKept adds a new key with its first hit to the journal. If there is no room,
// the key is counted in memory only.
func (s *Store) addKept(key string) {
	key = strings.Clone(key)
	n, err := s.journal.Add(key, 1)
	if err == nil {
		s.counts[key] = n
		return
	}
	s.fail(err, "new keys are counted in memory only, and are lost if the process is killed")
	one := int64(1)
	s.loose[key] = &one
}

// isWaiting reports whether a part that waits has the key.
func (s *Store) isWaiting(key string) bool {
	return slices.ContainsFunc(s.waiting, func(p part) bool { return p.counts[key] != nil })
}

// takeKept is Take with a journal. If parts wait that an earlier process has sent, it
// takes one of them. Otherwise it takes the sum of all that waits and of all new counts,
// or, if the disk has no room for the sum, the part that waits for the longest time.
func (s *Store) takeKept() Counts {
	isSent := func(p part) bool { return p.sent }
	if !slices.ContainsFunc(s.waiting, isSent) {
		s.journal.Prepare()
		s.freeze()
		s.mergeWaiting()
	}
	var p part
	waiting := s.waiting
	if len(waiting) > 0 {
		i := max(0, slices.IndexFunc(waiting, isSent))
		p, waiting = waiting[i], slices.Concat(waiting[:i], waiting[i+1:])
	}
	hits, bytes := p.counts.Hits(), p.counts.cost()

	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = waiting
	s.batch, s.taken = p, hits
	s.out, s.held = bytes, s.held-bytes
	return p.counts
}

// freeze ends the file that new hits go to. Its counts become a part, and those that
// are in memory only become another one. It takes constant time.
func (s *Store) freeze() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if file := s.journal.Take(); file != nil {
		s.waiting = append(s.waiting, part{counts: s.counts, file: file})
		s.counts = make(Counts)
	}
	if len(s.loose) > 0 {
		s.waiting = append(s.waiting, part{counts: s.loose})
		s.loose = make(Counts)
	}
}

// mergeWaiting makes one part of all parts, unless the disk has no room for it. A single
// part whose file has just its counts stays as it is. Hits may be recorded meanwhile:
// Record looks up keys in the parts, but does not read counts.
func (s *Store) mergeWaiting() {
	if len(s.waiting) == 0 || len(s.waiting) == 1 && s.waiting[0].file != nil && !s.waiting[0].rest {
		return
	}
	sum := part{counts: make(Counts)}
	var bytes int64
	var files []*journal.Batch
	for _, p := range s.waiting {
		bytes += p.counts.cost()
		sum.counts.add(p.counts)
		if p.file != nil {
			files = append(files, p.file)
		}
	}
	var err error
	sum.file, err = s.journal.Write(sum.counts.records(s.Aside), files...)
	bytes -= sum.counts.cost()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err, "counts can not be merged on the disk")
	if err != nil && len(files) > 0 {
		return
	}
	s.waiting, s.held = []part{sum}, s.held-bytes
}

// mergeKept is Merge with a journal. What is left of the batch becomes the part that
// waits for the longest time. If nothing is left, the file is deleted.
func (s *Store) mergeKept() {
	p := s.batch
	p.sent = false
	var err error
	if len(p.counts) == 0 && p.file != nil {
		err = p.file.Remove()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err, "a batch that is done with can not be deleted, and may be sent again after the next start")
	if len(p.counts) > 0 {
		s.waiting = slices.Insert(s.waiting, 0, p)
		s.held += s.out
	}
	s.asked = s.asked && s.out > s.limit/2
	s.batch, s.out, s.taken = part{}, 0, 0
}

// Close ends the use of the Store. It returns the counts that the journal keeps for
// the next process, and those that are left in memory only: without a journal, all of
// them. It is called last, and not while hits are recorded.
func (s *Store) Close() (kept, lost Counts) {
	if s.journal == nil {
		s.Merge(s.batch.counts)
		return nil, s.Take()
	}
	s.freeze()
	kept, lost = make(Counts), make(Counts)
	for _, p := range s.waiting {
		if p.file == nil || p.file.Lost() {
			file, err := s.journal.Write(p.counts.records(s.Aside))
			s.failUnlocked(err, "it can not keep what is in memory only")
			p.file = file
		}
		if p.file == nil {
			lost.add(p.counts)
		} else {
			kept.add(p.counts)
		}
	}
	// A batch in doubt that has no file is not written to one: it would come back
	// under another id.
	if s.batch.file == nil || s.batch.file.Lost() {
		lost.add(s.batch.counts)
	} else {
		kept.add(s.batch.counts)
	}
	s.journal.Close()
	return kept, lost
}

// SetProgress stores the progress of the batch that was taken, so that the next
// process goes on from there if this one is killed. It is called before each POST
// of counts, and when all of them are done with. The first call also writes the
// batch to the disk, so that it outlives a power cut.
func (s *Store) SetProgress(first, end int) {
	if s.batch.file != nil {
		err := s.batch.file.SetProgress(journal.Progress{Sent: true, First: first, End: end})
		s.failUnlocked(err, "counts may be lost or counted twice if the process is killed")
	}
}

// SetAside stores which keys of the batch are set aside. It is called before the
// progress moves past them.
func (s *Store) SetAside(aside func(key string) bool) {
	if s.batch.file != nil {
		s.failUnlocked(s.batch.file.SetAside(aside), "keys may be lost if the process is killed")
	}
}

// Replace writes left, which is what is left of the batch that was taken, to a new file
// in place of the batch's, and returns the id of the new file. The keys in aside are set
// aside in it.
func (s *Store) Replace(left []Count, aside map[string]bool) (id string) {
	if s.batch.file == nil {
		return rand.Text()
	}
	for key, n := range s.batch.counts {
		hits := *n // n may point into the file, which is unmapped below.
		s.mu.Lock()
		s.batch.counts[key] = &hits
		s.mu.Unlock()
	}
	file, err := s.journal.Write(func(yield func(journal.Record) bool) {
		for _, count := range left {
			if !yield(journal.Record{Key: count.Key, Hits: count.Hits, Aside: aside[count.Key]}) {
				return
			}
		}
	}, s.batch.file)
	if err != nil {
		s.failUnlocked(err, "counts may be counted twice if the process is killed")
		return rand.Text()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batch.file, s.batch.sent, s.batch.rest = file, false, false
	return file.ID
}

// records yields the counts as the journal writes them.
func (c Counts) records(aside map[string]bool) func(yield func(journal.Record) bool) {
	return func(yield func(journal.Record) bool) {
		for key, n := range c {
			if !yield(journal.Record{Key: key, Hits: *n, Aside: aside[key]}) {
				return
			}
		}
	}
}
