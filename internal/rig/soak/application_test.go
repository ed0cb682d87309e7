//go:build linux

package soak

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// temper is how an application refuses a request for what it is: with a status, or by
// closing ("cut") or resetting ("reset") the connection when it has read the request.
type temper struct {
	bad   string // for a key that begins with ~bad
	large string // for a body that is larger than the application's limit
}

func (t temper) String() string {
	return fmt.Sprintf("%s for a bad key, %s for a large body", t.bad, t.large)
}

// uses reports whether the daemon takes an answer for one of the refusals.
func (t temper) uses(how string) bool {
	kind := func(how string) string { return strings.Replace(how, "reset", "cut", 1) }
	return kind(how) == kind(t.bad) || kind(how) == kind(t.large)
}

// idempotent is an application that saves each id once. It refuses bad keys and large
// bodies for ever. Until it is calm it also refuses everything for a time, locks ids, loses
// answers and cuts connections, but never so often that the daemon may take what it has
// saved for refused: five times in a row, or twice in the way in which it refuses content.
type idempotent struct {
	temper
	posted chan struct{} // receives when a connection comes, unless nobody waits for it
	open   atomic.Int64  // connections under way

	mu     sync.Mutex
	random *rand.Rand
	calm   bool
	limit  int      // bytes of a body
	faults []string // what it does beside saving: an answer, or "409", which locks the id
	row    int      // how many POSTs in a row it has not accepted
	outage string   // how it refuses everything; "" if it does not
	until  time.Time
	locked string // the id that is locked until the application is calm
	ids    map[string]*id
	saved  map[string]int64 // the hits of each key
	posts  []post
	lives  []*life
	wrong  []string // what must not happen, but has
}

// id is what the application knows of an id.
type id struct {
	body         [32]byte // the checksum
	tries        int
	saved        bool
	acknowledged bool      // by an answer that the daemon must have got
	failures     int       // how many times the answer was lost, or another one, after it was saved
	locked       time.Time // until then it is answered with 409
	counts       map[string]int64
}

// post is a POST that the application has read.
type post struct {
	time   time.Time
	life   int
	id     string
	counts map[string]int64
	size   int
	saves  bool
	how    string
}

// life is what is known of one process of the daemon.
type life struct {
	answered map[string]int64 // hits that it has answered
	maybe    map[string]int64 // hits without an answer: it may have counted them
	full     bool             // its disk was full at some time, so it may have counted in memory only
	killed   bool
	log      string
	aside    map[string]int64 // what its log has as refused
	lost     map[string]int64 // what its log has as not delivered
}

// newIdempotent returns an application that is calm if random is nil.
func newIdempotent(t temper, random *rand.Rand, journal bool) *idempotent {
	a := &idempotent{
		temper: t, posted: make(chan struct{}), random: random, calm: random == nil, limit: 1 << 30,
		ids: make(map[string]*id), saved: make(map[string]int64),
	}
	if random == nil {
		return a
	}
	a.limit = 500 + random.IntN(2000)
	a.faults = []string{"200 cut", "409", "502", "503", "reset", "cut", "unsaved 503"}
	if journal { // Counts in memory that are refused with 500 go on under another id.
		a.faults = append(a.faults, "hang", "500")
	} else {
		a.faults = slices.DeleteFunc(a.faults, func(how string) bool { return t.uses(strings.TrimPrefix(how, "unsaved ")) })
	}
	return a
}

// newLife begins a life.
func (a *idempotent) newLife(full bool) *life {
	l := &life{
		answered: make(map[string]int64), maybe: make(map[string]int64), full: full,
		aside: make(map[string]int64), lost: make(map[string]int64),
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lives = append(a.lives, l)
	return l
}

// current returns the life under way, or nil.
func (a *idempotent) current() *life {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lives) == 0 {
		return nil
	}
	return a.lives[len(a.lives)-1]
}

// add adds a hit of a key to a map.
func (a *idempotent) add(to map[string]int64, key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	to[key]++
}

// roll reports true once in n times, and never if the application is calm.
func (a *idempotent) roll(n int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.calm && a.random.IntN(n) == 0
}

// serve reads one request and answers it, or does not.
func (a *idempotent) serve(conn net.Conn) {
	a.open.Add(1)
	defer a.open.Add(-1)
	select {
	case a.posted <- struct{}{}:
	default:
	}
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	if !a.uses("cut") && a.roll(30) {
		rig.Reset(conn)
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	if !a.uses("cut") && a.roll(30) {
		io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		rig.Reset(conn)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The daemon was killed.
	}
	switch how := a.receive(r.Header.Get("Idempotency-Key"), string(body)); how {
	case "200":
		rig.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsaved")(conn)
	case "200 cut":
		rig.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsa")(conn)
		rig.Reset(conn)
	case "hang":
		io.Copy(io.Discard, conn)
	case "reset":
		rig.Reset(conn)
	case "cut":
	default:
		rig.Answer("HTTP/1.1 " + how + " No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(conn)
	}
}

// validID is an id as the header must have it.
var validID = regexp.MustCompile(`^"[A-Za-z0-9.-]{26,}"$`)

// receive checks a request, saves its counts or does not, and returns how to answer.
func (a *idempotent) receive(name, body string) (how string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	form, err := url.ParseQuery(body)
	var counts map[string]int64
	if err == nil {
		err = json.Unmarshal([]byte(form.Get("json")), &counts)
	}
	if err != nil || validID.MatchString(name) != (len(counts) > 0) {
		a.wrong = append(a.wrong, fmt.Sprintf("the id %q comes with the body %.200q: %v", name, body, err))
	}
	p := post{time: time.Now(), life: len(a.lives), id: name, counts: counts, size: len(body)}
	p.how, p.saves = a.decide(p, sha256.Sum256([]byte(body)))
	a.posts = append(a.posts, p)
	return p.how
}

// decide returns how to answer, and whether it has saved the counts.
func (a *idempotent) decide(p post, body [32]byte) (how string, saves bool) {
	// An outage begins and ends at a POST with counts. So an empty object never seems to show
	// that the application is there.
	if len(p.counts) == 0 && a.outage != "" {
		return a.outage, false
	} else if len(p.counts) == 0 {
		return "200", false
	}
	known := a.ids[p.id]
	if known == nil {
		known = &id{body: body, counts: p.counts}
		a.ids[p.id] = known
	}
	if known.body != body {
		a.wrong = append(a.wrong, fmt.Sprintf("the id %s comes again with another body", p.id))
	}
	if a.calm || p.time.After(a.until) {
		a.outage = ""
	}
	if !a.calm && a.outage == "" && a.random.IntN(80) == 0 {
		a.outage = []string{"403", "500", "503", "cut"}[a.random.IntN(4)]
		a.until = p.time.Add(time.Duration(300+a.random.IntN(900)) * time.Millisecond)
	}
	a.row++
	known.tries++
	isBad := false
	for key := range p.counts {
		isBad = isBad || strings.HasPrefix(key, "~bad")
	}
	switch {
	case a.outage != "" && !(known.saved && a.uses(a.outage)):
		return a.outage, false
	case !a.calm && (p.time.Before(known.locked) || p.id == a.locked):
		return "409", false
	case known.saved:
	case isBad:
		return a.bad, false
	case len(body) > 0 && p.size > a.limit:
		return a.large, false
	}
	how = "200"
	// What was saved is lost twice at most, and never after other failures.
	if !a.calm && a.row <= 3 && known.failures < 2 && a.random.IntN(4) == 0 {
		how = a.faults[a.random.IntN(len(a.faults))]
	}
	switch {
	case how == "500" && known.saved: // Three in a row would be a refusal.
		how = "200"
	case known.tries > 1 && a.uses(strings.TrimPrefix(how, "unsaved ")):
		how = "200"
	case how == "409":
		a.lock(p, known)
		return "409", false
	case how == "unsaved 503":
		return "503", false
	}
	if saves = !known.saved; saves {
		known.saved = true
		for key, n := range p.counts {
			a.saved[key] += n
		}
	}
	switch how {
	case "200":
		a.row, known.acknowledged = 0, true
	case "200 cut":
		a.row = 0
	case "502", "cut": // The worker may have died with the lock.
		if a.random.IntN(4) == 0 {
			a.lock(p, known)
		}
		fallthrough
	default:
		known.failures++
	}
	return how, saves
}

// lock locks an id: the first one until the application is calm.
func (a *idempotent) lock(p post, known *id) {
	if a.locked == "" {
		a.locked = p.id
	} else {
		known.locked = p.time.Add(time.Duration(a.random.IntN(1000)) * time.Millisecond)
	}
}

// differences returns a line for each key of which hits are lost or doubled, as far as it is
// known now, and the keys.
func (a *idempotent) differences() (lines, keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	answered, maybe, aside, lost := make(map[string]int64), make(map[string]int64), make(map[string]int64), make(map[string]int64)
	for _, l := range a.lives {
		if l.full && l.killed {
			add(maybe, l.answered)
		} else {
			add(answered, l.answered)
		}
		add(maybe, l.maybe)
		add(aside, l.aside)
		add(lost, l.lost)
	}
	doubt := make(map[string]int64)
	for _, known := range a.ids {
		if known.saved && !known.acknowledged {
			add(doubt, known.counts)
		}
	}
	all := maps.Clone(answered)
	add(all, a.saved)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		made, saved := answered[key]+maybe[key], a.saved[key]
		switch {
		case saved > made, saved+lost[key] > made+doubt[key]:
			lines = append(lines, fmt.Sprintf("%.50s: doubled: %d hits are saved and %d logged as not delivered, "+
				"of which %d may have been saved, but at most %d were made", key, saved, lost[key], doubt[key], made))
		case saved+lost[key]+aside[key] < answered[key]:
			lines = append(lines, fmt.Sprintf("%.50s: lost: %d hits were answered, but %d are saved, %d logged as not "+
				"delivered and %d as refused", key, answered[key], saved, lost[key], aside[key]))
		default:
			continue
		}
		keys = append(keys, key)
	}
	return lines, keys
}

func add(to, from map[string]int64) {
	for key, n := range from {
		to[key] += n
	}
}

// check fails the test if something has happened that must not, or unless each hit that was
// answered is saved once. It tells what is known of the first keys that are wrong.
func (a *idempotent) check(t *testing.T) {
	t.Helper()
	lines, keys := a.differences()
	for _, line := range slices.Concat(firstFew(a.wrong), firstFew(lines)) {
		t.Error(line)
	}
	for _, key := range keys[:min(2, len(keys))] {
		t.Errorf("All that is known of %.50s:\n%s", key, a.story(key))
	}
	if len(lines) > 0 {
		var last strings.Builder
		for _, p := range a.posts[max(0, len(a.posts)-60):] {
			fmt.Fprintln(&last, p)
		}
		t.Errorf("The last POSTs:\n%s", &last)
	}
}

func (p post) String() string {
	return fmt.Sprintf("  %s POST %s of %d keys, %d bytes; saved: %v; answer: %s",
		p.time.Format("05.000"), p.id, len(p.counts), p.size, p.saves, p.how)
}

// story tells what became of a key: in each life, the POSTs that had it and the lines of the
// log but for other keys.
func (a *idempotent) story(key string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var b strings.Builder
	for i, l := range a.lives {
		var posts strings.Builder
		for _, p := range a.posts {
			if p.life == i+1 && p.counts[key] > 0 {
				fmt.Fprintf(&posts, "%v; %d hits\n", p, p.counts[key])
			}
		}
		if l.answered[key]+l.maybe[key]+l.aside[key]+l.lost[key] == 0 && posts.Len() == 0 {
			continue
		}
		fmt.Fprintf(&b, "Process %d (killed: %v, disk full: %v): %d hits answered, %d without an answer; log: %d refused, "+
			"%d not delivered\n%s", i+1, l.killed, l.full, l.answered[key], l.maybe[key], l.aside[key], l.lost[key], &posts)
		previous := ""
		for line := range strings.Lines(l.log) {
			line = strings.TrimSuffix(line, "\n")
			if _, of, isCount := strings.Cut(line, ":\t"); line != previous && (!isCount || of == key) {
				fmt.Fprintf(&b, "    %.100s\n", line)
				previous = line
			}
		}
	}
	return b.String()
}

// firstFew returns at most ten lines, and how many there are.
func firstFew(lines []string) []string {
	if n := len(lines); n > 10 {
		slices.Sort(lines)
		lines = append(lines[:10:10], fmt.Sprintf("%d lines like these", n))
	}
	return lines
}
