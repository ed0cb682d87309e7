package hits

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"pixel-ping/internal/journal"
)

// A part is counts that wait in the Store for their delivery. Without a journal,
// counts that come back are added to those of new hits. With one they stay apart
// until Take writes the sum to a new file: if they were added to the file that new
// hits go to, a crash could count them twice.
type part struct {
	counts Counts
	file   *journal.Batch // nil: the counts are in memory only
	sent   bool           // an earlier process has sent it, so it must be sent again as it is
	rest   bool           // the file has more than counts: some of it is delivered
}

// UseJournal has the Store keep its counts in j, and adds the batches that j was opened
// with, which the Store then owns. It is called before all other methods. With a
// journal, only Record, Full, Refused, Pending, Stats and JournalError may be called by
// many goroutines at once.
func (s *Store) UseJournal(j *journal.Journal, batches []*journal.Batch) {
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
}

// ID returns the id of the batch that was taken: the same after a crash, and never
// the same for other counts.
func (s *Store) ID() string {
	if s.batch.file == nil || s.batch.rest {
		return rand.Text()
	}
	return s.batch.file.ID
}

// Keeps reports whether the Store has a journal.
func (s *Store) Keeps() bool { return s.journal != nil }

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

// takeKept is Take with a journal. The batch is one that an earlier process has
// sent; or else all that waits, with all new counts; or, if there is no room on the
// disk for their sum, what waits for the longest time.
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

// freeze ends the file that new hits go to. In constant time, what it holds and
// what is in memory only become parts.
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

// mergeWaiting makes one part of all, as far as the disk has room for it. Hits are
// recorded meanwhile, which look up keys in the parts, but do not read counts.
func (s *Store) mergeWaiting() {
	if len(s.waiting) == 0 || len(s.waiting) == 1 && s.waiting[0].file != nil && !s.waiting[0].rest {
		return
	}
	sum := part{counts: make(Counts)}
	var bytes int64
	var files []*journal.Batch
	for _, p := range s.waiting {
		bytes += p.counts.cost()
		for key, n := range p.counts {
			if held := sum.counts[key]; held != nil {
				*held += *n
			} else {
				hits := *n // p.counts may point into the file, which is unmapped below.
				sum.counts[key] = &hits
			}
		}
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

// mergeKept is Merge with a journal.
func (s *Store) mergeKept() {
	p := s.batch
	p.sent = false
	var err error
	if len(p.counts) == 0 && p.file != nil {
		err = p.file.Remove()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail(err, "a batch that is done with could not be deleted, and may be sent again after the next start")
	if len(p.counts) > 0 {
		s.waiting = slices.Insert(s.waiting, 0, p)
		s.held += s.out
	}
	s.asked = s.asked && s.out > s.limit/2
	s.batch, s.out, s.taken = part{}, 0, 0
}

// Close ends the use of the journal, and returns how many hits are lost because they
// are in memory only. No other method may be called at the same time or later.
func (s *Store) Close() (lost int64) {
	if s.journal == nil {
		return s.pending
	}
	s.freeze()
	for _, p := range append(s.waiting, s.batch) {
		if p.file == nil && len(p.counts) > 0 {
			if _, err := s.journal.Write(p.counts.records(s.Aside)); err != nil {
				lost += p.counts.Hits()
			}
		}
	}
	s.journal.Close()
	return lost
}

// SetProgress stores the progress of the batch that was taken, so that the next
// process goes on from there if this one is killed. It is called before each POST
// of counts, and when all of them are done with. The first call also writes the
// batch to the disk, so that it outlives a power cut.
func (s *Store) SetProgress(first, end int) {
	file := s.batch.file
	if file == nil {
		return
	}
	synced := file.Progress.Sent
	err := file.SetProgress(journal.Progress{Sent: true, First: first, End: end})
	if err == nil && !synced {
		err = file.Sync()
	}
	s.failUnlocked(err, "counts may be lost or counted twice if the process is killed")
}

// SetAside stores which keys of the batch are set aside. It is called before the
// progress moves past them.
func (s *Store) SetAside(aside func(key string) bool) {
	if s.batch.file != nil {
		s.failUnlocked(s.batch.file.SetAside(aside), "keys may be lost if the process is killed")
	}
}

// Replace makes a new batch of what is left of the one that was taken, and returns
// its id. The keys in aside are set aside in it.
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
