package endpoint

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
)

// rigged is an application that answers each POST with what decide returns: a status, or ""
// to cut the connection after the request was read, "cut short" to cut it before, or "hang".
// It looks at ids, and saves what it answers with 2xx.
type rigged struct {
	t      *testing.T
	mu     sync.Mutex
	decide func(p posted) string
	posts  []posted
	saved  map[string]int64
	known  map[string]bool
	bodies map[string]map[string]int64 // the counts of each id
	aside  []string                    // keys that were set aside
	store  *hits.Store
	*Endpoint
}

// posted is a POST.
type posted struct {
	id     string
	counts map[string]int64
	size   int64
}

func (p posted) has(key string) bool { return p.counts[key] > 0 }

func newRigged(t *testing.T, decide func(posted) string) *rigged {
	r := &rigged{t: t, decide: decide, saved: make(map[string]int64), known: make(map[string]bool)}
	r.bodies = make(map[string]map[string]int64)
	r.store = hits.NewStore(1 << 30)
	r.Endpoint = New(&url.URL{Scheme: "http", Host: "application"}, "/", "", time.Second)
	r.Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			r.serve(theirs)
		}()
		return ours, nil
	}
	return r
}

func (r *rigged) serve(conn net.Conn) {
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	p := posted{id: request.Header.Get("Idempotency-Key"), size: request.ContentLength}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	if err := json.Unmarshal([]byte(form.Get("json")), &p.counts); err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if before := r.bodies[p.id]; before != nil && !maps.Equal(before, p.counts) {
		r.t.Errorf("the id %s has %d keys and then %d", p.id, len(before), len(p.counts))
	}
	r.bodies[p.id] = p.counts
	answer := "204 No Content"
	if !r.known[p.id] || p.id == "" {
		answer = r.decide(p)
	}
	r.posts = append(r.posts, p)
	if strings.HasPrefix(answer, "2") && !r.known[p.id] {
		r.known[p.id] = true
		for key, n := range p.counts {
			r.saved[key] += n
		}
	}
	switch answer {
	case "":
	case "hang":
		r.mu.Unlock()
		io.Copy(io.Discard, conn)
		r.mu.Lock()
	default:
		fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", answer)
	}
}

// answer makes the application answer with a status from now on.
func (r *rigged) answer(status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decide = always(status)
}

// batch returns a batch of keys.
func (r *rigged) batch(keys ...string) *hits.Batch {
	for _, key := range keys {
		r.store.Record(key)
	}
	before := 0
	for r.store.Batch(before) != nil {
		before++
	}
	r.store.Seal(func([]hits.Count) {}, true)
	return r.store.Batch(before)
}

// send sends b once, and returns the report.
func (r *rigged) send(b *hits.Batch) Report {
	budget := MaxRefused
	return r.Send(r.t.Context(), b, &budget, func(list []hits.Count) {
		for _, count := range list {
			r.aside = append(r.aside, count.Key)
		}
	})
}

// sent returns how many POSTs with counts, and how many empty ones, were made since the last
// call.
func (r *rigged) sent() (full, empty int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.posts {
		if len(p.counts) > 0 {
			full++
		} else {
			empty++
		}
	}
	r.posts = nil
	return full, empty
}

func (r *rigged) expectSent(full, empty int) {
	r.t.Helper()
	if gotFull, gotEmpty := r.sent(); gotFull != full || gotEmpty != empty {
		r.t.Errorf("%d POSTs of counts and %d empty ones, want %d and %d", gotFull, gotEmpty, full, empty)
	}
}

// expectDelivered fails the test unless all keys but aside are saved once, and those are set aside.
func (r *rigged) expectDelivered(b *hits.Batch, keys []string, aside ...string) {
	r.t.Helper()
	slices.Sort(r.aside)
	slices.Sort(aside)
	if !slices.Equal(r.aside, aside) {
		r.t.Errorf("%.60q are set aside, want %.60q", r.aside, aside)
	}
	if !b.Done() {
		r.t.Errorf("%d keys are left", len(b.Left()))
	}
	for _, key := range keys {
		want := int64(1)
		if slices.Contains(aside, key) {
			want = 0
		}
		if r.saved[key] != want {
			r.t.Errorf("%q is saved %d times, want %d", key, r.saved[key], want)
			return
		}
	}
}

// always answers with a status.
func always(status string) func(posted) string { return func(posted) string { return status } }

// refusing answers with a status if there are counts, and accepts empty objects.
func refusing(status string) func(posted) string {
	return func(p posted) string {
		if len(p.counts) > 0 {
			return status
		}
		return "204 No Content"
	}
}

// honest returns n keys of some 20 to 40 bytes.
func honest(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("https://a.example/%d/%s", i, strings.Repeat("x", i%17)))
	}
	return keys
}

func TestSend(t *testing.T) {
	r := newRigged(t, always("200 OK"))
	b := r.batch("a", "b")
	if report := r.send(b); report != (Report{}) {
		t.Errorf("the report is %+v", report)
	}
	r.expectDelivered(b, []string{"a", "b"})
	if p := r.posts[0]; len(r.posts) != 1 || len(p.id) < 26 {
		t.Errorf("the POSTs are %+v", r.posts)
	}
	r.sent()
	r.Ready = func() error { return io.EOF } // The empty object has no place to be stored.
	if report := r.Ping(t.Context()); report != (Report{}) || r.posts[0].id != "" {
		t.Errorf("an empty object has the id %q, and the report is %+v", r.posts[0].id, report)
	}
}

// What has got no answer of the application is sent again as it is. Anything else is a refusal,
// for which newer counts need not wait.
func TestInDoubt(t *testing.T) {
	doubtful := []string{"", "502 X", "503 X", "504 X", "520 X", "521 X", "522 X", "523 X", "524 X"}
	for _, status := range append(doubtful, "302 X", "400 X", "401 X", "403 X", "409 X", "429 X", "500 X", "501 X", "505 X",
		"519 X", "525 X") {
		r := newRigged(t, always(status))
		b := r.batch("a", "b")
		report := r.send(b)
		doubt := slices.Contains(doubtful, status)
		if report.Err == nil || b.Doubt != doubt || report.Answered == doubt {
			t.Errorf("%q: in doubt is %v, and the report %+v", status, b.Doubt, report)
		}
		r.answer("500 No") // Whatever comes then, the part is in doubt.
		r.send(b)
		if b.Doubt != doubt {
			t.Errorf("%q, then 500: in doubt is %v", status, b.Doubt)
		}
		r.answer("200 OK")
		if report := r.send(b); report.Err != nil || !b.Done() || b.Doubt {
			t.Errorf("%q, then 200: the report is %+v", status, report)
		}
		for _, p := range r.posts {
			if p.id != r.posts[0].id || !maps.Equal(p.counts, map[string]int64{"a": 1, "b": 1}) {
				t.Errorf("%q: the POSTs are %+v", status, r.posts)
			}
		}
	}
}

// A part that was not written whole is in no doubt, whatever the answer.
func TestNotWritten(t *testing.T) {
	for answer, answered := range map[string]bool{"HTTP/1.1 503 Busy\r\n\r\n": false, "HTTP/1.1 500 Oops\r\n\r\n": true} {
		r := newRigged(t, nil)
		r.Endpoint = piped(t, time.Second, func(conn net.Conn) { conn.Read(make([]byte, 1)); io.WriteString(conn, answer) })
		b := r.batch(honest(10_000)...)
		if report := r.send(b); b.Doubt || report.Answered != answered {
			t.Errorf("%q: in doubt is %v, and the report %+v", answer, b.Doubt, report)
		}
	}
}

// The time for an answer doubles with each time-out, up to ten minutes.
func TestTimeDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigged(t, func(p posted) string {
			if len(p.counts) > 0 {
				return "hang"
			}
			return "503 Busy"
		})
		b := r.batch("a")
		for _, want := range []time.Duration{1, 2, 4, 8, 10, 10} {
			began := time.Now()
			r.send(b)
			expectDuration(t, began, want*time.Minute)
		}
		r.answer("200 OK")
		r.send(b)
		r.answer("hang")
		b, began := r.batch("b"), time.Now()
		r.send(b)
		expectDuration(t, began, time.Minute)
	})
}

// The content is suspected after three refusals in a row with the same status, but not with
// one of those that have another meaning.
func TestWhenContentIsSuspected(t *testing.T) {
	for status, want := range map[string][2]int{ // which flush asks, and whether a search begins
		"400 X": {3, 1}, "403 X": {3, 1}, "422 X": {3, 1}, "500 X": {3, 1}, "302 X": {3, 1}, "501 X": {3, 1},
		"": {5, 1}, "503 X": {5, 1}, "504 X": {5, 1}, "hang": {5, 1},
		"401 X": {}, "407 X": {}, "408 X": {}, "409 X": {}, "425 X": {}, "429 X": {}, "502 X": {}, "520 X": {}, "521 X": {}, "523 X": {},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRigged(t, refusing(status))
			b := r.batch("a", "b", "c")
			for flush := 1; flush <= 12; flush++ {
				r.send(b)
				full, empty := r.sent()
				if asks := flush == want[0]; (empty > 0) != asks || (full > 1) != (asks && want[1] == 1) {
					t.Errorf("%q: flush %d has %d POSTs of counts and %d empty ones", status, flush, full, empty)
				}
				if flush == want[0] {
					return
				}
			}
		})
	}
}

// Outcomes of two kinds do not add up.
func TestOutcomesOfTwoKinds(t *testing.T) {
	for _, kinds := range [][2]string{{"", "503 X"}, {"503 X", "504 X"}, {"403 X", "500 X"}} {
		i := 0
		r := newRigged(t, func(p posted) string { i++; return kinds[i%2] })
		b := r.batch("a", "b")
		for range 20 {
			r.send(b)
		}
		r.expectSent(20, 0)
		if len(r.aside) > 0 {
			t.Errorf("%q are set aside", r.aside)
		}
	}
}

// If the empty object is refused as well, nothing is known. The application is asked again
// after 1, 2, 4 and at last 60 flushes. Only then it may be the secret.
func TestEmptyObjectIsRefused(t *testing.T) {
	for _, status := range []string{"403 X", "500 X"} {
		r := newRigged(t, always(status))
		b := r.batch("a", "b")
		var asked []int
		for flush := 1; flush <= 200; flush++ {
			report := r.send(b)
			full, empty := r.sent()
			if full != 1 || report.Forbidden != (empty > 0 && status != "500 X") || report.Answered != (empty == 0) {
				t.Errorf("%s: flush %d has %d POSTs of counts, %d empty ones, and the report %+v", status, flush, full, empty, report)
			}
			if empty > 0 {
				asked = append(asked, flush)
			}
		}
		if want := []int{3, 5, 8, 13, 22, 39, 72, 133, 194}; !slices.Equal(asked, want) {
			t.Errorf("%s: asked in the flushes %v, want %v", status, asked, want)
		}
	}
	r := newRigged(t, always("403 X"))
	if report := r.Ping(t.Context()); !report.Forbidden {
		t.Errorf("the report of an empty flush is %+v", report)
	}
}

// Nothing is learned from the end of the context.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigged(t, always("hang"))
		b := r.batch("a")
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			r.Send(ctx, b, new(int), func([]hits.Count) {})
			cancel()
		}
		r.expectSent(10, 0)
		if m := b.Memo.(*memo); !b.Doubt || m.row > 0 || m.late > 0 {
			t.Errorf("in doubt is %v, and %+v is remembered", b.Doubt, m)
		}
	})
}

// Without a way to set keys aside, there is one POST.
func TestSendOnce(t *testing.T) {
	for _, status := range []string{"413 X", "403 X", "200 OK"} {
		r := newRigged(t, always(status))
		b := r.batch("a", "b")
		report := r.Send(t.Context(), b, nil, nil)
		r.expectSent(1, 0)
		if (report.Err == nil) != (status == "200 OK") || b.Done() != (report.Err == nil) {
			t.Errorf("%s: the report is %+v", status, report)
		}
	}
}
