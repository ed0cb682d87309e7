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
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/endpoint"
	"pixel-ping/internal/flush"
	"pixel-ping/internal/hits"
	"pixel-ping/internal/logwriter"
)

// hostile is an application that answers, or fails to answer, in every way that
// there is. It saves counts if it answers with 2xx, and at times if it does not
// answer; it looks at ids. At times it refuses requests above a random size as too
// large.
type hostile struct {
	t      *testing.T
	mu     sync.Mutex
	random *rand.Rand
	saved  map[string]int64
	known  map[string]bool   // the ids of what is saved
	bodies map[string]string // of each id that was received
	met    map[string]int
	bad    string // no counts with this key are saved; a firewall before the application answers with 403

	connections sync.WaitGroup
}

func (h *hostile) intn(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.random.IntN(n)
}

// dial connects to the application through a pipe, not a network.
func (h *hostile) dial(context.Context, string, string) (net.Conn, error) {
	if h.intn(8) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	ours, theirs := net.Pipe()
	h.connections.Go(func() {
		defer theirs.Close()
		h.serve(theirs)
	})
	return ours, nil
}

// serve handles one connection. Each write to the pipe is read in full before it
// returns, so the application knows whether its status line has arrived.
func (h *hostile) serve(conn net.Conn) {
	answers := []struct {
		name   string
		action func()
	}{
		{"200", func() { h.save(conn, "HTTP/1.1 200 OK\r\n", "Content-Length: 0\r\n\r\n") }},
		{"201 with a body", func() { h.save(conn, "HTTP/1.1 201 Created\r\n", "Content-Length: 2\r\n\r\nok") }},
		{"103 and 204", func() { h.save(conn, "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n", "\r\n") }},
		{"saved, then closed", func() { h.save(conn, "", "") }},
		{"saved, then half a status line", func() { h.save(conn, "HTTP/1.1 2", "") }},
		{"saved, then 502", func() { h.save(conn, "HTTP/1.1 502 Bad Gateway\r\n", "\r\n") }},
		{"saved, then 520", func() { h.save(conn, "", "HTTP/1.1 520 Unknown\r\n\r\n") }},
		{"saved, then silence", func() { h.save(conn, "", ""); io.Copy(io.Discard, conn) }},
		{"502", func() { h.refuse(conn, "HTTP/1.1 502 Bad Gateway\r\n\r\n") }},
		{"200 and a reset", func() { h.save(conn, "HTTP/1.1 200 OK\r\n", "") }},
		{"200 and a slow body", func() {
			if h.save(conn, "HTTP/1.1 200 OK\r\n", "Content-Length: 100\r\n\r\n") {
				h.trickle(conn, 100)
			}
		}},
		{"200 after a while", func() {
			<-time.After(time.Duration(h.intn(50)) * time.Second)
			h.save(conn, "HTTP/1.1 200 OK\r\n", "\r\n")
		}},
		{"302", func() { h.refuse(conn, "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n") }},
		{"404", func() { h.refuse(conn, "HTTP/1.1 404 Not Found\r\n\r\n") }},
		{"500 and a reset", func() { h.refuse(conn, "HTTP/1.1 500 Oops\r\n") }},
		{"503 before it is read", func() { io.WriteString(conn, "HTTP/1.1 503 Busy\r\n\r\n") }},
		{"413 when it is large", func() { h.limited(conn, true) }},
		{"413 when it is large, before it is read", func() { h.limited(conn, false) }},
		{"413 always", func() { h.refuse(conn, "HTTP/1.1 413 Too Large\r\n\r\n") }},
		{"cut before it is read", func() { conn.Read(make([]byte, 10)) }},
		{"cut after it is read", func() { h.refuse(conn, "") }},
		{"half a status line", func() { h.refuse(conn, "HTTP/1.1 20") }},
		{"no HTTP", func() { h.refuse(conn, "hello\r\n") }},
		{"hang", func() { io.Copy(io.Discard, conn) }},
		{"hang after it is read", func() { h.refuse(conn, ""); io.Copy(io.Discard, conn) }},
	}
	answer := answers[h.intn(len(answers))]
	h.mu.Lock()
	h.met[answer.name]++
	h.mu.Unlock()
	answer.action()
}

// read reads a request and returns its id and its counts.
func (h *hostile) read(conn net.Conn) (id string, counts map[string]int64, ok bool) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return "", nil, false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", nil, false
	}
	return h.parse(r, body)
}

func (h *hostile) parse(r *http.Request, body []byte) (id string, counts map[string]int64, ok bool) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return "", nil, false
	}
	err = json.Unmarshal([]byte(form.Get("json")), &counts)
	id = r.Header.Get("Idempotency-Key")
	h.mu.Lock()
	defer h.mu.Unlock()
	if (id == "") != (len(counts) == 0) {
		h.t.Errorf("the id of %d counts is %q", len(counts), id)
	}
	if first := h.bodies[id]; id != "" && first != "" && first != string(body) {
		h.t.Errorf("the id %s has two bodies:\n%s\n%s", id, first, body)
	}
	h.bodies[id] = string(body)
	return id, counts, err == nil
}

// add saves counts, unless it has done so before.
func (h *hostile) add(id string, counts map[string]int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, n := range counts {
		if !h.known[id] {
			h.saved[key] += n
		}
	}
	h.known[id] = true
}

// save reads the request and keeps its counts if the status line has arrived.
func (h *hostile) save(conn net.Conn, status, rest string) bool {
	id, counts, ok := h.read(conn)
	if !ok {
		return false
	}
	if counts[h.bad] > 0 {
		io.WriteString(conn, "HTTP/1.1 403 Forbidden\r\n\r\n")
		return false
	}
	if _, err := io.WriteString(conn, status); err != nil {
		return false
	}
	h.add(id, counts)
	io.WriteString(conn, rest)
	return true
}

func (h *hostile) refuse(conn net.Conn, answer string) {
	if _, _, ok := h.read(conn); ok {
		io.WriteString(conn, answer)
	}
}

// limited takes requests up to a random size.
func (h *hostile) limited(conn net.Conn, reads bool) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	limit := int64(h.intn(200))
	body, err := io.ReadAll(io.LimitReader(r.Body, min(r.ContentLength, limit)))
	if err != nil {
		return
	}
	if r.ContentLength > limit {
		if reads {
			io.Copy(io.Discard, r.Body)
		}
		io.WriteString(conn, "HTTP/1.1 413 Too Large\r\n\r\n")
		return
	}
	id, counts, ok := h.parse(r, body)
	if !ok || counts[h.bad] > 0 {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n"); err == nil {
		h.add(id, counts)
	}
}

// trickle writes a byte a second.
func (h *hostile) trickle(conn net.Conn, n int) {
	for range n {
		<-time.After(time.Second)
		if _, err := io.WriteString(conn, "x"); err != nil {
			return
		}
	}
}

// TestConservation tests the promise that all of this package is for: after any
// schedule of hits, flushes, signals and failures, each hit was delivered, or is
// held, or was reported as not counted. None is lost. None is counted twice unless
// it was reported that some may be.
func TestConservation(t *testing.T) {
	first, schedules := uint64(time.Now().UnixNano()), 200
	if text := os.Getenv("SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED is not a number: %v", err)
		}
		first, schedules = n, 1
	}
	met := make(map[string]int)
	for i := range schedules {
		seed := first + uint64(i)
		synctest.Test(t, func(t *testing.T) {
			conserve(t, seed, met)
			if t.Failed() {
				t.Fatalf("run with SEED=%d to repeat this schedule", seed)
			}
		})
	}
	if schedules > 100 && len(met) < 25 {
		t.Errorf("only these answers were met: %v", met)
	}
}

func conserve(t *testing.T, seed uint64, met map[string]int) {
	random := rand.New(rand.NewPCG(seed, 1))
	app := &hostile{t: t, random: rand.New(rand.NewPCG(seed, 2)), met: met, bad: "key7"}
	app.saved, app.known, app.bodies = make(map[string]int64), make(map[string]bool), make(map[string]string)
	interval := time.Duration(1+random.IntN(90)) * time.Second
	target := endpoint.New(&url.URL{Scheme: "http", Host: "application"}, "/", "", interval)
	target.Dial = app.dial
	dir := ""
	if seed%2 == 0 {
		dir = t.TempDir()
	}
	store, err := hits.Open(int64(500+random.IntN(20000)), dir, func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr strings.Builder
	flusher := &flush.Flusher{
		Store: store, Endpoint: target, Interval: interval,
		Stdout: logwriter.New(&stdout), Stderr: logwriter.New(&stderr),
	}

	ctx, abandon := context.WithCancel(t.Context())
	defer abandon()
	forced, stopped, ended := make(chan os.Signal, 1), make(chan struct{}), make(chan string, 1)
	go func() { ended <- flusher.Run(ctx, stopped, forced) }()

	// Several clients at once, each with a schedule of its own.
	recorded := make(chan map[string]int64)
	const clients = 3
	keys := 1 + random.IntN(60)
	for range clients {
		r := rand.New(rand.NewPCG(random.Uint64(), 3))
		go func() {
			mine := make(map[string]int64)
			for range 200 {
				key := fmt.Sprint("key", r.IntN(keys))
				store.Record(key)
				mine[key]++
				switch r.IntN(20) {
				case 0:
					<-time.After(time.Duration(r.IntN(30)) * time.Second)
				case 1:
					select {
					case forced <- os.Interrupt:
					default:
					}
				}
			}
			recorded <- mine
		}()
	}
	want, total := make(map[string]int64), int64(0)
	for range clients {
		for key, n := range <-recorded {
			want[key] += n
			total += n
		}
	}

	// The stop comes at any moment, and sometimes its delivery is abandoned.
	<-time.After(time.Duration(random.IntN(200)) * time.Second)
	close(stopped)
	if random.IntN(2) == 0 {
		<-time.After(time.Duration(random.IntN(8)) * time.Second)
		abandon()
	}
	lost := <-ended
	flusher.Stderr.Wait(time.Minute)
	app.connections.Wait()

	// What is not delivered is in the log, or in the journal, or was refused.
	reported, doubt := int64(0), int64(0)
	if lost != "" {
		lost = "pixel-ping: " + lost
	}
	for line := range strings.Lines(stderr.String() + lost) {
		var n, inDoubt int64
		if _, err := fmt.Sscanf(strings.Replace(line, "refused by the application: ", "", 1), "pixel-ping: %d hit", &n); err == nil {
			reported += n
			if _, text, ok := strings.Cut(line, "not delivered ("); ok {
				fmt.Sscanf(text, "%d", &inDoubt)
				doubt += inDoubt
			}
		}
	}
	mayBeDoubled := strings.Contains(stderr.String(), "counted twice")
	sum := reported
	for key, n := range app.saved {
		sum += n
		if n > want[key] && !mayBeDoubled {
			t.Errorf("%s: %d hits were recorded, but %d are saved", key, want[key], n)
		}
	}
	if sum < total || sum > total+doubt && !mayBeDoubled {
		t.Errorf("%d hits were recorded, but %d are saved or reported, and %d in doubt\n%s", total, sum, doubt, stderr.String())
	}
	if lost != "" && (!strings.HasSuffix(lost, "; the log has them") || dir != "") {
		t.Errorf("what is left is said to be %q", lost)
	}
}
