//go:build unix

package flush_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// Whatever an application that looks at ids answers, and whenever the process is killed, each
// hit is saved once, or is in the log as one that the application refuses.
func TestKills(t *testing.T) {
	first, schedules := uint64(time.Now().UnixNano()), 15
	if text := os.Getenv("SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED is not a number: %v", err)
		}
		first, schedules = n, 1
	}
	for i := range schedules {
		k := &killed{
			t: t, random: rand.New(rand.NewPCG(first+uint64(i), 1)), root: t.TempDir(),
			recorded: make(map[string]int64), logged: make(map[string]int64),
			saved: make(map[string]int64), known: make(map[string]bool), bodies: make(map[string]string),
			stuck: make(map[string]bool), failures: make(map[string]int),
		}
		k.run()
		if t.Failed() {
			t.Fatalf("run with SEED=%d to repeat this schedule", first+uint64(i))
		}
	}
}

// killed is a journal and an application that outlive processes which are killed.
type killed struct {
	t      *testing.T
	random *rand.Rand
	root   string // a directory for each life's journal
	lives  int
	killAt int  // the moment at which the process is killed; 0 for none
	dead   bool // it was killed: its journal is a copy, and nobody hears what it says from now on
	calm   bool // the application only refuses what it always refuses
	unread bool // it has cut a connection in this life before it has read the request

	bad       string // counts with this key are refused
	badStatus string
	limit     int // larger bodies are refused
	tooLarge  string

	recorded, logged, saved map[string]int64
	known, stuck            map[string]bool   // by id
	failures                map[string]int    // how many POSTs with an id it has not treated as it should
	bodies                  map[string]string // by id

	serving sync.WaitGroup
}

func (k *killed) dir(life int) string { return filepath.Join(k.root, fmt.Sprint(life)) }

// kill copies the journal as it is at this moment. The next life has the copy.
func (k *killed) kill() {
	if k.dead {
		return
	}
	k.dead = true
	k.lives++
	os.Mkdir(k.dir(k.lives), 0o700)
	files, _ := filepath.Glob(filepath.Join(k.dir(k.lives-1), "*"))
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil { // It may be a file made ahead, and deleted meanwhile.
			err = os.WriteFile(filepath.Join(k.dir(k.lives), filepath.Base(name)), text, 0o600)
		}
		if err != nil && !os.IsNotExist(err) {
			k.t.Error(err)
		}
	}
}

// run runs twelve processes, and compares what was recorded with what was saved. Some say
// that hits may be counted twice. None is, since the application looks at ids.
func (k *killed) run() {
	status := func() string {
		return []string{"400 Bad", "403 Forbidden", "413 Too Large", "422 Odd", "500 Oops"}[k.random.IntN(5)]
	}
	k.bad, k.badStatus = fmt.Sprint("keyxx", k.random.IntN(12)), status()
	k.limit, k.tooLarge = 120+k.random.IntN(400), status()
	for life := range 12 {
		k.calm, k.dead, k.unread, k.killAt = life >= 10, false, false, 0
		k.live()
	}
	for key, n := range k.recorded {
		saved := k.saved[key]
		if saved > n || saved+k.logged[key] < n {
			k.t.Errorf("%s: %d hits were recorded, %d saved, %d logged as refused", key, n, saved, k.logged[key])
		}
	}
	if k.saved[k.bad] > 0 {
		k.t.Errorf("the key that is refused was saved")
	}
}

// live runs a process to its end.
func (k *killed) live() {
	store, err := hits.Open(1<<20, k.dir(k.lives), func(line string) { k.t.Errorf("told: %s", line) })
	if err != nil {
		k.t.Fatal(err)
	}
	store.SealRecovered()
	e := endpoint.New(&url.URL{Scheme: "http", Host: "application"}, "/", "", time.Minute)
	e.Dial = func(context.Context, string, string) (net.Conn, error) {
		k.serving.Wait() // The process may be killed after the last answer.
		if k.dead || !k.calm && k.random.IntN(8) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		ours, theirs := net.Pipe()
		k.serving.Go(func() {
			defer theirs.Close()
			k.serve(theirs)
		})
		return ours, nil
	}
	var stdout, stderr strings.Builder
	f := &flush.Flusher{
		Store: store, Endpoint: e, Interval: time.Hour, Stdout: logwriter.New(&stdout), Stderr: logwriter.New(&stderr),
	}
	for range 2 + k.random.IntN(8) {
		for range k.random.IntN(30) {
			key := fmt.Sprint("key", strings.Repeat("x", k.random.IntN(12)), k.random.IntN(12))
			store.Record(key)
			k.recorded[key]++
		}
		if !k.calm && k.random.IntN(5) == 0 {
			k.killAt = 1 + k.random.IntN(4)
		}
		f.Flush(k.t.Context())
		k.serving.Wait()
		if k.killAt == 4 {
			k.kill()
		}
		if k.dead {
			break
		}
	}
	if k.calm {
		for range 12 { // Five for a part in doubt, and three for each of two batches.
			f.Flush(k.t.Context())
		}
	}
	if k.dead {
		store.Close()
	} else {
		stopped := make(chan struct{})
		close(stopped)
		if lost := f.Run(k.t.Context(), stopped, nil); lost != "" {
			k.t.Error(lost)
		}
	}
	k.serving.Wait()
	f.Stdout.Wait(time.Minute)
	f.Stderr.Wait(time.Minute)
	k.readLog(stdout.String())
	if k.calm && store.Stats().Pending > 0 {
		k.t.Errorf("%d hits are left of an application that is calm:\n%s", store.Stats().Pending, stderr.String())
	}
}

// readLog adds up the counts that the log has as refused.
func (k *killed) readLog(log string) {
	refused := false
	for line := range strings.Lines(log) {
		var n int64
		var key string
		if _, err := fmt.Sscanf(line, "%d:\t%s", &n, &key); err != nil {
			refused = line == "Refused by the application:\n"
		} else if refused {
			k.logged[key] += n
		}
	}
}

// serve handles one connection.
func (k *killed) serve(conn net.Conn) {
	if k.dead {
		return
	}
	if k.killAt == 1 {
		k.kill()
		return
	}
	if !k.calm && !k.unread && k.random.IntN(12) == 0 {
		k.unread = true
		return // The request is not written whole.
	}
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	counts := make(map[string]int64)
	json.Unmarshal([]byte(form.Get("json")), &counts)
	id := r.Header.Get("Idempotency-Key")
	if before, ok := k.bodies[id]; ok && id != "" && before != string(body) {
		k.t.Errorf("the id %s has two bodies:\n%s\n%s", id, before, body)
	}
	k.bodies[id] = string(body)

	status, saves := "204 No Content", true
	if k.failures[id]++; !k.calm && (id == "" || k.failures[id] <= 3) { // Five in a row may count hits twice.
		switch k.random.IntN(11) {
		case 0:
			status = "502 Bad Gateway" // after it is saved
		case 1:
			status = "503 Busy" // likewise
		case 2:
			status = "" // likewise
		case 3:
			status, saves = "", false
		case 4:
			status, saves = "500 Oops", false
		case 5:
			status, saves = "409 Conflict", false
			k.stuck[id] = id != ""
		case 6:
			status, saves = "500 Oops", k.failures[id] == 1 // A search sends a part a second time, and not a third.
		}
		if k.known[id] && strings.HasPrefix(status, "500") {
			status = "204 No Content" // It looks at ids.
		}
	}
	switch {
	case k.known[id] && id != "":
	case k.stuck[id] && !k.calm:
		status, saves = "409 Conflict", false
	case len(body) > k.limit:
		status, saves = k.tooLarge, false
	case counts[k.bad] > 0:
		status, saves = k.badStatus, false
	}
	if saves && !k.known[id] {
		k.known[id] = true
		for key, n := range counts {
			k.saved[key] += n
		}
	}
	if k.killAt == 2 {
		k.kill()
		return
	}
	if status != "" {
		fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", status)
	}
	if k.killAt == 3 {
		k.kill()
	}
}
