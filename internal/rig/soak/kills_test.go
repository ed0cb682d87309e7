//go:build unix

package soak

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// For SOAKTIME, a daemon with a journal is killed under load, again and again, beside
// an application that looks at ids. Each hit that was answered is saved once, key by
// key. A hit without an answer, as at a kill, may be saved or not.
func TestKills(t *testing.T) {
	t.Parallel()
	duration, err := time.ParseDuration(os.Getenv("SOAKTIME"))
	if err != nil {
		t.Fatalf("SOAKTIME: %v", err)
	}
	seed := rand.Uint64()
	if text := os.Getenv("SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SEED is not a number: %v", err)
		}
	}
	t.Logf("SEED=%d repeats the keys, the outcomes of the application and the kinds of kills", seed)
	// newRandom returns a source of its own for each who makes random decisions.
	sources := uint64(0)
	newRandom := func() *rand.Rand {
		sources++
		return rand.New(rand.NewPCG(seed, sources))
	}

	a := newIdempotent(newRandom())
	a.bad = "page7"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var application sync.WaitGroup
	application.Go(func() { rig.Accept(listener, a.serve) })

	k := &killer{
		application: a, random: newRandom(), port: rig.FreePort(t), journal: filepath.Join(t.TempDir(), "journal"),
		endpoint: listener.Addr().String(), closed: "127.0.0.1:" + rig.FreePort(t),
	}
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		random := newRandom()
		clients.Go(func() { a.ledger.click("127.0.0.1:"+k.port, random, done) })
	}
	for end := time.Now().Add(duration); time.Now().Before(end); {
		k.live(t)
	}
	close(done)
	clients.Wait()

	// The last daemon delivers what is left.
	a.calm.Store(true)
	d := k.start(t, k.endpoint)
	d.Stdout.WaitLine(t, 0, "Serving")
	for limit := time.Now().Add(rig.Deadline); k.sealed(t) > 0 && time.Now().Before(limit); {
		<-time.After(10 * time.Millisecond)
	}
	d.Flush(t)
	d.Stop(t)
	k.checkLog(t, d)
	listener.Close()
	application.Wait()
	if left, err := filepath.Glob(filepath.Join(k.journal, "*")); err != nil || len(left) > 0 {
		t.Errorf("the journal has the files %q when everything is delivered (error %v)", left, err)
	}
	a.check(t)
	for moment, n := range map[string]int{"start": k.starts, "flush": k.flushes, "stop": k.stops} {
		if n == 0 {
			t.Errorf("none of the %d kills came during a %s", k.kills, moment)
		}
	}
	if least := int(duration.Seconds() * 0.75); k.kills < least {
		t.Errorf("%d kills in %v, want at least %d", k.kills, duration, least)
	}
	answered, maybe := sum(a.answered), sum(a.maybe)
	if answered < 1000 {
		t.Errorf("%d hits were answered, want at least 1000", answered)
	}
	summary.kills = fmt.Sprintf("With a journal, %d kills (%d in a start, %d in a flush, %d in a stop): "+
		"%s hits answered and %s without an answer, %s delivered; key by key, none lost, none doubled (SEED=%d). ",
		k.kills, k.starts, k.flushes, k.stops,
		rig.Number(answered), rig.Number(maybe), rig.Number(sum(a.saved)), seed)
}

// idempotent is an application that saves each id once, and misbehaves in every way
// that this allows.
type idempotent struct {
	*ledger
	posted chan struct{} // receives when a connection comes, unless nobody waits for it
	open   atomic.Int64  // connections under way
	calm   atomic.Bool   // each request is accepted

	mu       sync.Mutex
	random   *rand.Rand
	refused  map[string]int64    // hits that the log has as refused
	stuck    map[string]bool     // ids that are answered with 409
	bad      string              // a key that a firewall before the application refuses with 403, with all that comes with it
	failures int                 // outcomes in a row that the daemon takes for failures
	bodies   map[string][32]byte // the checksum of the body that came with an id
	savedIDs map[string]bool
	wrong    []string // what must not happen, but has
}

func newIdempotent(random *rand.Rand) *idempotent {
	return &idempotent{
		ledger: newLedger(), posted: make(chan struct{}), random: random,
		bodies: make(map[string][32]byte), savedIDs: make(map[string]bool), stuck: make(map[string]bool),
		refused: make(map[string]int64),
	}
}

// An outcome is what the application does with a request.
type outcome int

const (
	save outcome = iota
	saveAndCutAnswer
	saveAndReset
	saveAndClose
	saveAndHang
	saveAndBadGateway
	saveAndBusy
	refuse
	refuseWith500
	refuseWith409 // for as long as the id comes, until the application is calm
	resetUnread
	resetHalfRead
	outcomes
)

// maxFailures is how often in a row the application does not answer with success.
// After five cuts or five 413s, the daemon may count hits twice.
const maxFailures = 4

// draw returns an outcome, and the size of the largest body that is accepted.
func (a *idempotent) draw() (outcome, int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calm.Load() || a.failures >= maxFailures {
		a.failures = 0
		return save, 1 << 30
	}
	o, limit := save, int64(20_000+a.random.IntN(400_000))
	if a.random.IntN(3) > 0 {
		o = outcome(a.random.IntN(int(outcomes)))
	}
	a.failures++
	return o, limit
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
	o, limit := a.draw()
	if o == resetUnread {
		rig.Reset(conn)
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	switch {
	case o == resetHalfRead:
		io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		rig.Reset(conn)
		return
	case r.ContentLength > limit:
		rig.Answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(conn)
		io.Copy(io.Discard, r.Body)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // The daemon was killed.
	}
	id := r.Header.Get("Idempotency-Key")
	o, refusal := a.judge(id, string(body), o)
	a.receive(id, string(body), o < refuse)
	switch o {
	case save, saveAndCutAnswer:
		a.mu.Lock()
		a.failures = 0
		a.mu.Unlock()
		rig.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsa")(conn)
		if o == save {
			rig.Answer("ved")(conn)
		} else {
			rig.Reset(conn)
		}
	case saveAndReset:
		rig.Reset(conn)
	case saveAndHang:
		io.Copy(io.Discard, conn)
	case saveAndBadGateway:
		rig.Answer("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(conn)
	default:
		rig.Answer("HTTP/1.1 " + refusal + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(conn)
	}
}

// judge returns what becomes of counts, and the status if they are refused, whatever was drawn.
func (a *idempotent) judge(id, body string, o outcome) (outcome, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.savedIDs[id]:
		if o >= refuse {
			o = save
		}
	case a.stuck[id] && !a.calm.Load():
		return refuseWith409, "409 Conflict"
	case a.bad != "" && strings.Contains(body, "%22"+a.bad+"%22"):
		return refuse, "403 Forbidden"
	case o == refuseWith409:
		a.stuck[id] = id != ""
	}
	switch o {
	case saveAndBusy, refuse:
		return o, "503 Busy"
	case refuseWith500:
		return o, "500 Oops"
	}
	return o, "409 Conflict"
}

// validID is an id as the header must have it.
var validID = regexp.MustCompile(`^"[A-Za-z0-9.-]{26,}"$`)

// receive checks that an id always comes with the same body, and saves the counts of
// each id once, if asked to.
func (a *idempotent) receive(id, body string, toSave bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	form, err := url.ParseQuery(body)
	var counts map[string]int64
	if err == nil {
		err = json.Unmarshal([]byte(form.Get("json")), &counts)
	}
	if err != nil {
		a.wrong = append(a.wrong, fmt.Sprintf("the body %.200q: %v", body, err))
		return
	}
	if len(counts) == 0 && id == "" {
		return
	}
	if !validID.MatchString(id) {
		a.wrong = append(a.wrong, fmt.Sprintf("the id %q comes with counts", id))
		return
	}
	checksum := sha256.Sum256([]byte(body))
	if before, ok := a.bodies[id]; ok && before != checksum {
		a.wrong = append(a.wrong, fmt.Sprintf("the id %s comes again with another body", id))
	}
	a.bodies[id] = checksum
	if !toSave || a.savedIDs[id] {
		return
	}
	a.savedIDs[id] = true
	for key, n := range counts {
		a.ledger.add(a.saved, key, n)
	}
}

// check fails the test unless each hit that was answered is saved once.
func (a *idempotent) check(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, line := range firstFew(a.wrong) {
		t.Error(line)
	}
	var wrong []string
	for key, n := range a.answered {
		if a.saved[key]+a.refused[key] < n {
			wrong = append(wrong, fmt.Sprintf("%.50s: %d hits are saved and %d refused, but %d were answered", key, a.saved[key], a.refused[key], n))
		}
	}
	for key, n := range a.saved {
		if most := a.answered[key] + a.maybe[key]; n > most {
			wrong = append(wrong, fmt.Sprintf("%.50s: %d hits are saved, but at most %d were made", key, n, most))
		}
	}
	for _, line := range firstFew(wrong) {
		t.Error(line)
	}
	if a.bad != "" && (a.saved[a.bad] > 0 || len(a.refused) == 0) {
		t.Errorf("%d hits of %s are saved, and %d keys are refused", a.saved[a.bad], a.bad, len(a.refused))
	}
}

// firstFew returns at most ten lines, and how many there are.
func firstFew(lines []string) []string {
	if n := len(lines); n > 10 {
		slices.Sort(lines)
		lines = append(lines[:10:10], fmt.Sprintf("%d lines like these", n))
	}
	return lines
}

// killer starts daemons and kills each.
type killer struct {
	application *idempotent
	random      *rand.Rand
	port        string
	journal     string // the directory
	endpoint    string // where the application listens
	closed      string // where nobody listens

	// How many daemons were killed, and when. A kill may come during a flush and a
	// stop.
	kills, starts, flushes, stops int
}

func (k *killer) start(t *testing.T, endpoint string) *rig.Daemon {
	t.Helper()
	return rig.StartProgram(t, map[string]any{
		"port": k.port, "interval": 0.15, "endpoint": "http://" + endpoint + "/save", "journal": k.journal,
	}, rig.Binary)
}

// live runs one daemon until it is killed.
func (k *killer) live(t *testing.T) {
	t.Helper()
	endpoint := k.endpoint
	if k.random.IntN(6) == 0 {
		endpoint = k.closed // All connections are refused.
	}
	d := k.start(t, endpoint)
	stopping := false
	switch k.random.IntN(4) {
	case 0: // during the start
		k.wait(12 * time.Millisecond)
	case 1: // any time
		d.Stdout.WaitLine(t, 0, "Serving")
		k.wait(time.Second)
	case 2: // during a flush
		d.Stdout.WaitLine(t, 0, "Serving")
		k.wait(300 * time.Millisecond)
		select {
		case <-k.application.posted:
		case <-time.After(500 * time.Millisecond):
		}
		k.wait(3 * time.Millisecond)
	case 3: // during a stop
		d.Stdout.WaitLine(t, 0, "Serving")
		k.wait(400 * time.Millisecond)
		d.Signal(t, syscall.SIGTERM)
		stopping = true
		k.wait(20 * time.Millisecond)
	}
	flushing := k.application.open.Load() > 0
	d.Cmd.Process.Kill() // It fails if a stop has ended before.
	status := d.Wait(t)
	k.checkLog(t, d)
	if status != -1 {
		if !stopping || status != 0 {
			t.Errorf("exit status %d of a daemon that was not killed (stopped: %v)", status, stopping)
		}
		return
	}
	k.kills++
	if !strings.Contains(d.Stdout.String(), "Serving") {
		k.starts++
	}
	if flushing {
		k.flushes++
	}
	if stopping {
		k.stops++
	}
}

// wait waits for a random time.
func (k *killer) wait(most time.Duration) {
	<-time.After(time.Duration(k.random.Int64N(int64(most))))
}

// sealed returns how many files of the journal were sent, or were going to be.
func (k *killer) sealed(t *testing.T) (n int) {
	names, _ := filepath.Glob(filepath.Join(k.journal, "*.hits"))
	for _, name := range names {
		head := make([]byte, 16)
		file, err := os.Open(name)
		if err != nil {
			continue // It is deleted.
		}
		if _, err := file.ReadAt(head, 0); err == nil && binary.NativeEndian.Uint64(head[8:]) == 1 {
			n++
		}
		file.Close()
	}
	return n
}

// expectedLines are what a daemon with a journal may write to stderr here. No line may
// tell of damage, of counts that are in memory only, or of hits counted twice.
var expectedLines = regexp.MustCompile(`^(--- |pixel-ping: \d+ hits? of \d+ keys? ` +
	`(recovered from the journal|(was|were) not delivered.*; the journal has them)$` +
	`|pixel-ping: (the application refuses |refused by the application: |some hits may be counted twice: ))`)

// checkLog fails the test if a daemon writes anything unexpected to stderr.
func (k *killer) checkLog(t *testing.T, d *rig.Daemon) {
	t.Helper()
	for line := range strings.Lines(d.Stderr.String()) {
		if !expectedLines.MatchString(strings.TrimSuffix(line, "\n")) {
			t.Errorf("the standard error has the line %q", line)
		}
	}
	refused := false
	for line := range strings.Lines(d.Stdout.String()) {
		var n int64
		var key string
		if _, err := fmt.Sscanf(line, "%d:\t%s\n", &n, &key); err != nil {
			refused = line == "Refused by the application:\n"
		} else if refused {
			k.application.add(k.application.refused, key, n)
		}
	}
}
