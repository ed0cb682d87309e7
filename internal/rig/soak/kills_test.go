//go:build linux

package soak

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// tempers are those of the applications in TestKills.
var tempers = []temper{
	{bad: "403", large: "413"}, {bad: "400", large: "400"}, {bad: "422", large: "503"},
	{bad: "500", large: "500"}, {bad: "cut", large: "413"}, {bad: "reset", large: "400"},
}

// For SOAKTIME, daemons with a journal are killed under load, again and again, and daemons
// without one are stopped, beside applications that look at ids. Each hit that was answered
// is saved once, key by key, or the log has it as refused or not delivered. A hit without an
// answer, as at a kill, may be saved or not.
func TestKills(t *testing.T) {
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
	t.Logf("SEED=%d repeats the keys, the outcomes of the applications and the kinds of kills", seed)
	t.Parallel()
	var all tally
	var rigs sync.WaitGroup
	for i, temper := range tempers {
		for j, kind := range []string{"journal", []string{"full disk", "memory"}[i%2]} {
			rigs.Go(func() { // More of them at once than tests may run in parallel.
				t.Run(fmt.Sprintf("%s, %v", kind, temper), func(t *testing.T) {
					random := func(n int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(100*i+10*j+n))) }
					k := &killer{
						application: newIdempotent(temper, random(0), kind == "journal"), random: random(1),
						port: rig.FreePort(t), closed: "127.0.0.1:" + rig.FreePort(t), startup: 20 * time.Millisecond,
					}
					if kind != "memory" {
						k.journal = filepath.Join(t.TempDir(), "journal")
					}
					if kind == "full disk" {
						k.disk = mount(t, "-t", "tmpfs", "-o", "size=32m", "none")
						k.journal = filepath.Join(k.disk.folder, "journal")
					}
					k.run(t, duration, random(2))
					all.add(k)
				})
			})
		}
	}
	rigs.Wait()
	all.check(t, duration, seed)
}

// tally is what was done in all.
type tally struct {
	mu                                           sync.Mutex
	kills, starts, recoveries, posts, stops, set int
	answered, maybe, saved                       int64
}

func (a *tally) add(k *killer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kills += k.kills
	a.starts += k.starts
	a.recoveries += k.recoveries
	a.posts += k.posts
	a.stops += k.stops
	for _, l := range k.application.lives {
		a.answered += sum(l.answered)
		a.maybe += sum(l.maybe)
		if len(l.aside) > 0 {
			a.set++
		}
	}
	a.saved += sum(k.application.saved)
}

// check fails the test if too little was done.
func (a *tally) check(t *testing.T, duration time.Duration, seed uint64) {
	if t.Failed() {
		return
	}
	for moment, n := range map[string]int{
		"a start": a.starts, "a recovery": a.recoveries, "a POST": a.posts, "a stop": a.stops,
	} {
		if n == 0 {
			t.Errorf("none of the %d kills came during %s", a.kills, moment)
		}
	}
	if least := int(duration.Minutes() * 50); a.kills < least {
		t.Errorf("%d kills in %v, want at least %d", a.kills, duration, least)
	}
	if a.answered < 1000 || a.set == 0 {
		t.Errorf("%d hits were answered, want at least 1000; %d processes set keys aside", a.answered, a.set)
	}
	summary.kills = fmt.Sprintf("%d applications that refuse keys, bodies or everything, lock ids and lose answers, and %d "+
		"kills (%d in a start, %d in a recovery, %d in a POST, %d in a stop): %s hits answered and %s without an answer, %s "+
		"delivered; key by key, none lost but those that the log has, none doubled (SEED=%d). ", 2*len(tempers), a.kills,
		a.starts, a.recoveries, a.posts, a.stops, rig.Number(a.answered), rig.Number(a.maybe), rig.Number(a.saved), seed)
}

// killer starts daemons, and kills or stops each.
type killer struct {
	application *idempotent
	random      *rand.Rand
	port        string
	journal     string // the directory; "" for none
	disk        *disk  // where the journal is, if it is a disk that fills
	endpoint    string // where the application listens
	closed      string // where nobody listens
	startup     time.Duration

	// How many daemons were killed, and when. A kill may come during a POST and a stop.
	kills, starts, recoveries, posts, stops int
}

// run runs one daemon after the other for a time, and then one that delivers all that is left.
func (k *killer) run(t *testing.T, duration time.Duration, random *rand.Rand) {
	a := k.application
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.endpoint = listener.Addr().String()
	var application, client sync.WaitGroup
	application.Go(func() { rig.Accept(listener, a.serve) })
	done := make(chan struct{})
	client.Go(func() { a.click("127.0.0.1:"+k.port, random, done) })
	for end := time.Now().Add(duration); time.Now().Before(end) && !t.Failed(); {
		k.live(t)
	}
	close(done)
	client.Wait()

	if k.disk != nil {
		k.disk.empty(t)
	}
	a.mu.Lock()
	a.calm, a.locked = true, ""
	a.mu.Unlock()
	l := a.newLife(false)
	d := k.start(t, k.endpoint, 0.05)
	d.Stdout.WaitLine(t, 0, "Serving")
	conn, err := net.Dial("tcp", "127.0.0.1:"+k.port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range 400 {
		log := d.Stdout.String()
		l.read(log)
		// Nothing is out after a flush that has not failed. A batch may be out though no hit is missing: the client may
		// have got no answer for what it has.
		if lines, _ := a.differences(); len(lines) == 0 && strings.HasSuffix(log, "--- flushed ---\n") {
			break
		}
		if i%10 == 0 { // A key is set aside only if another one is accepted.
			a.hit(conn, l, "page0")
		}
		<-time.After(50 * time.Millisecond)
	}
	d.Signal(t, syscall.SIGTERM)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d of the last daemon; its log is:\n%s", status, lastLines(d.Stdout.String()))
	}
	l.read(d.Stdout.String())
	k.checkLog(t, l)
	listener.Close()
	application.Wait()
	if left, _ := filepath.Glob(filepath.Join(k.path(), "*")); k.journal != "" && len(left) > 0 {
		t.Errorf("the journal has the files %q when everything is delivered; the log is:\n%s", left, lastLines(l.log))
	}
	a.check(t)
}

// path returns where this process sees the journal.
func (k *killer) path() string {
	if k.disk != nil {
		return k.disk.path("journal")
	}
	return k.journal
}

// start starts a daemon whose stdout and stderr are the same, so that its lines are in order.
func (k *killer) start(t *testing.T, endpoint string, interval float64) *rig.Process {
	t.Helper()
	settings := map[string]any{
		"host": "127.0.0.1", "port": k.port, "interval": interval, "endpoint": "http://" + endpoint + "/save",
	}
	if k.journal != "" {
		settings["journal"] = k.journal
	}
	command := []string{rig.Binary, rig.WriteConfig(t, settings)}
	if k.disk != nil {
		command = k.disk.command(command...)
	}
	output := rig.NewOutput()
	return rig.Start(t, exec.Command(command[0], command[1:]...), output, output)
}

// live runs one daemon until it is killed or stopped.
func (k *killer) live(t *testing.T) {
	t.Helper()
	endpoint := k.endpoint
	if k.random.IntN(8) == 0 {
		endpoint = k.closed // All connections are refused.
	}
	l := k.application.newLife(k.disk != nil && k.disk.full)
	began := time.Now()
	d := k.start(t, endpoint, []float64{0.03, 0.1, 0.3}[k.random.IntN(3)])
	var changes sync.WaitGroup
	ended := make(chan struct{})
	if random := rand.New(rand.NewPCG(k.random.Uint64(), 0)); k.disk != nil {
		changes.Go(func() { k.disk.change(t, k.application, l, random, ended) })
	}
	serving := func() {
		d.Stdout.WaitLine(t, 0, "Serving")
		k.startup = (3*k.startup + time.Since(began)) / 4
	}
	signal := syscall.SIGKILL
	if k.journal == "" || k.disk != nil && k.random.IntN(2) == 0 {
		signal = []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}[k.random.IntN(3)]
	}
	stopping := false
	switch moment := k.random.IntN(5); {
	case signal != syscall.SIGKILL:
		serving()
		k.wait(2 * time.Second)
		if k.random.IntN(2) == 0 {
			d.Signal(t, syscall.SIGUSR2)
		}
	case moment == 0: // during the start
		k.wait(k.startup * 3 / 2)
	case moment == 1: // any time
		serving()
		k.wait(time.Second)
	case moment == 2: // during a POST, be it that of the recovery
		if k.random.IntN(2) == 0 {
			serving()
			k.wait(300 * time.Millisecond)
		}
		select {
		case <-k.application.posted:
		case <-time.After(500 * time.Millisecond):
		}
		k.wait(3 * time.Millisecond)
	case moment == 3: // after some flushes
		serving()
		k.wait(3 * time.Second)
	case moment == 4: // during a stop
		serving()
		k.wait(400 * time.Millisecond)
		d.Signal(t, syscall.SIGTERM)
		stopping = true
		k.wait(20 * time.Millisecond)
	}
	posting := k.application.open.Load() > 0
	d.Cmd.Process.Signal(signal) // It fails if a stop has ended before.
	status := d.Wait(t)
	close(ended)
	changes.Wait()
	l.killed = status == -1
	if files, _ := filepath.Glob(filepath.Join(k.path(), "*")); k.journal != "" && len(files) > 5 {
		t.Errorf("the journal has the files %q: a live one, the next one, and too many that are out", files)
	}
	l.read(d.Stdout.String())
	k.checkLog(t, l)
	if !l.killed {
		if undelivered := len(l.lost) > 0; signal == syscall.SIGKILL && !stopping || (status == 1) != undelivered || status > 1 {
			t.Errorf("exit status %d; its log is:\n%s", status, lastLines(l.log))
		}
		return
	}
	k.kills++
	if !strings.Contains(l.log, "Serving") {
		k.starts++
	}
	if _, after, recovering := strings.Cut(l.log, "recovered from the journal"); recovering && !strings.Contains(after, "\n--- ") {
		k.recoveries++
	}
	if posting {
		k.posts++
	}
	if stopping {
		k.stops++
	}
}

// wait waits for a random time.
func (k *killer) wait(most time.Duration) {
	<-time.After(time.Duration(k.random.Int64N(int64(most))))
}

// click makes hits until done is closed, with up to 200 hits on a connection. It tries again
// while the daemon is down. The application refuses some of the keys.
func (a *idempotent) click(address string, random *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(5 * time.Millisecond):
		}
		life := a.current()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		// The connection is one to the process of this life, as another one begins after its end.
		for hits := random.IntN(200); hits >= 0 && life != nil && life == a.current(); hits-- {
			key := fmt.Sprint("page", random.IntN(200))
			switch n := random.IntN(300); {
			case n < 3:
				key = fmt.Sprint("~bad", random.IntN(3))
			case n == 3:
				key = fmt.Sprint("~large", random.IntN(3), strings.Repeat("x", 3000))
			case n < 30:
				key = fmt.Sprintf("invented %x %s", random.Uint64(), strings.Repeat("x", random.IntN(300)))
			}
			if !a.hit(conn, life, key) {
				break
			}
			<-time.After(time.Duration(random.IntN(4)) * time.Millisecond)
		}
		conn.Close()
	}
}

// hit makes a hit over a connection to the process of a life, and reports whether it was answered.
func (a *idempotent) hit(conn net.Conn, l *life, key string) bool {
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", rig.Target(key))
	answer, err := rig.ReadAnswer(bufio.NewReader(conn))
	if err != nil {
		a.add(l.maybe, key)
		return false
	}
	if answer.StatusCode == 200 {
		a.add(l.answered, key)
	}
	return true
}

// countLine is a line of the log for a key.
var countLine = regexp.MustCompile(`^(\d+):\t(.*)$`)

// read reads a log of stdout and stderr. The counts under a title are sorted: where the order
// ends, other counts begin. What was not delivered has no title if it is what was logged last.
func (l *life) read(log string) {
	l.log = log
	clear(l.aside)
	clear(l.lost)
	var to map[string]int64
	block := make(map[string]int64)
	before := ""
	for line := range strings.Lines(log) {
		line = strings.TrimSuffix(line, "\n")
		match := countLine.FindStringSubmatch(line)
		if match != nil && match[2] <= before {
			to = nil
		}
		if match == nil && len(l.lost) == 0 && notDelivered.MatchString(line) {
			l.lost = block
		}
		switch {
		case match != nil:
			if before == "" || match[2] <= before {
				block = make(map[string]int64)
			}
			block[match[2]], _ = strconv.ParseInt(match[1], 10, 64)
			if to != nil {
				to[match[2]] += block[match[2]]
			}
			before = match[2]
			continue
		case line == "Refused by the application:":
			to = l.aside
		case line == "Not delivered:":
			to = l.lost
		default:
			to = nil
		}
		before = ""
	}
}

var notDelivered = regexp.MustCompile(`^pixel-ping: (\S+: )?\d+ hits? of .* not delivered.*; the log has them$`)

// expectedLines are what a daemon may write here. No line may tell of damage, or of counts
// that the log or the journal do not have.
var expectedLines = regexp.MustCompile(`^(\d+:\t.*|Flushing hits to .*|Serving .*|Got SIGUSR2\..*|--- .*|` +
	`Refused by the application:|Not delivered:|pixel-ping: (\S+: )?(` +
	`\d+ hits? of \d+ keys? (recovered from the journal|set aside)|` +
	`(refused by the application: )?\d+ hits? of \d+ keys? (was|were) not delivered( \(\d+ hits? may have been ` +
	`saved\))?; the (journal|log) has them|the application refuses .*|some hits may be counted twice: .*))$`)

// checkLog fails the test if a daemon writes anything unexpected.
func (k *killer) checkLog(t *testing.T, l *life) {
	t.Helper()
	for line := range strings.Lines(l.log) {
		text, whole := strings.CutSuffix(line, "\n")
		switch {
		case !whole && l.killed, expectedLines.MatchString(text):
		case strings.HasPrefix(text, "pixel-ping: ") && strings.Contains(text, "journal "+k.journal+": ") && l.full:
		default:
			t.Errorf("the log has the line %q", line)
		}
	}
}

// lastLines returns the end of a log.
func lastLines(log string) string {
	lines := slices.Collect(strings.Lines(log))
	return strings.Join(lines[max(0, len(lines)-30):], "")
}
