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
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
)

const (
	answer204 = "HTTP/1.1 204 No Content\r\n\r\n"
	answer413 = "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
	answer500 = "HTTP/1.1 500 Oops\r\n\r\n"
	answer502 = "HTTP/1.1 502 Bad Gateway\r\n\r\n"
	noAnswer  = "" // the connection is closed
	hang      = "hang"
)

// request is a POST that an app has received.
type request struct {
	id     string
	body   string
	counts map[string]int64
}

func (r request) keys() string { return strings.Join(slices.Sorted(maps.Keys(r.counts)), " ") }

// app is an application that knows ids, and takes bodies up to a limit.
type app struct {
	t        *testing.T
	limit    int                    // of a body, in bytes
	refusal  string                 // the answer to a larger one
	answer   func(r request) string // asked first; the app saves if it returns a 2xx
	forgets  bool                   // ids are not looked at
	saved    map[string]int64
	known    map[string]bool   // the ids of what is saved
	bodies   map[string]string // by id, saved or not
	requests []request
}

// newApp returns an application without a limit, and its endpoint, for a bubble.
func newApp(t *testing.T) (*app, *Endpoint) {
	a := &app{t: t, limit: 1 << 30, refusal: answer413}
	a.answer = func(request) string { return answer204 }
	a.saved, a.known, a.bodies = make(map[string]int64), make(map[string]bool), make(map[string]string)
	return a, piped(t, a.serve)
}

func (a *app) serve(conn net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	if r.ContentLength > 1<<20 && a.limit < 1<<20 {
		a.requests = append(a.requests, request{})
		io.Copy(io.Discard, r.Body)
		io.WriteString(conn, a.refusal)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	received := request{body: string(body)}
	json.Unmarshal([]byte(form.Get("json")), &received.counts)
	if header := r.Header.Get("Idempotency-Key"); header != "" {
		if !regexp.MustCompile(`^"[A-Za-z0-9.-]{26,}"$`).MatchString(header) {
			a.t.Errorf("the id is %s", header)
		}
		received.id = strings.Trim(header, `"`)
	}
	if sorted, _ := json.Marshal(received.counts); string(sorted) != form.Get("json") {
		a.t.Errorf("the keys of %.200s are not sorted", form.Get("json"))
	}
	if (received.id != "") != (len(received.counts) > 0) {
		a.t.Errorf("the id of %d counts is %q", len(received.counts), received.id)
	}
	if body, known := a.bodies[received.id]; known && received.id != "" && body != received.body {
		a.t.Errorf("the bodies of the id %s are\n%.200s\n%.200s", received.id, body, received.body)
	}
	a.bodies[received.id] = received.body
	a.requests = append(a.requests, received)
	answer := a.answer(received)
	if len(body) > a.limit {
		answer = a.refusal
	}
	if answer == answer204 {
		a.save(received)
	}
	if answer == hang {
		<-time.After(time.Hour)
	}
	io.WriteString(conn, answer)
}

// save saves the counts of r, unless their id is known.
func (a *app) save(r request) {
	if a.known[r.id] && !a.forgets {
		return
	}
	a.known[r.id] = true
	for key, n := range r.counts {
		a.saved[key] += n
	}
}

// expectPosts checks the keys of the POSTs that came since it was called last.
func (a *app) expectPosts(want ...string) {
	a.t.Helper()
	var got []string
	for _, r := range a.requests {
		got = append(got, r.keys())
	}
	if !slices.Equal(got, want) {
		a.t.Errorf("the POSTs have %.1000q, want %q", got, want)
	}
	a.requests = nil
}

// batch returns a batch with a hit of each key.
func batch(keys ...string) *Batch {
	of := make(map[string]int64)
	for _, key := range keys {
		of[key]++
	}
	b := NewBatch(counts(of), nil)
	b.Room = 1 << 30
	return b
}

func left(b *Batch) (keys []string) {
	for _, count := range b.Left() {
		keys = append(keys, count.Key)
	}
	return keys
}

func expectLeft(t *testing.T, b *Batch, want ...string) {
	t.Helper()
	if got := left(b); !slices.Equal(got, want) {
		t.Errorf("%.1000q are left, want %q", got, want)
	}
}

// next returns a batch with what is left of b and keys, as the next flush has it.
func next(b *Batch, keys ...string) *Batch {
	n := batch(append(left(b), keys...)...)
	n = NewBatch(n.List, b.Aside)
	n.Room = b.Room
	return n
}

// size returns the size of a body with a hit of each key.
func size(keys ...string) int { return int(new(Endpoint).bodySize(batch(keys...).List)) }

func TestTooLargeIsSentInParts(t *testing.T) {
	keys := []string{"k1", "k22", "k333", "k4444"}
	for name, test := range map[string]struct {
		limit    int
		answer   func(request) string
		posts    []string
		left     []string
		aside    int
		err      string
		accepted int
	}{
		"as a whole": {
			limit: size(keys...), posts: []string{"k1 k22 k333 k4444"},
		},
		"all of it in parts": {
			limit: size(keys...) - 1, posts: []string{"k1 k22 k333 k4444", "k1", "k22", "k333", "k4444"},
		},
		"down to single keys": {
			limit: size("k4444"), posts: []string{"k1 k22 k333 k4444", "k1", "k22", "k333", "k4444"},
		},
		"the largest key alone is too large": {
			limit: size("k333"), posts: []string{"k1 k22 k333 k4444", "k1", "k22", "k333", "k4444"},
			left: []string{"k4444"}, aside: 1, err: "flush failed with code:413",
		},
		"the larger keys are not asked for": {
			limit: size("k1"), posts: []string{"k1 k22 k333 k4444", "k1", "k22"},
			left: []string{"k22", "k333", "k4444"}, aside: 3, err: "flush failed with code:413",
		},
		"size is not the reason": {
			limit: 0, posts: []string{"k1 k22 k333 k4444", "k1"},
			left: keys, err: "flush failed with code:413",
		},
		"another failure": {
			limit: size(keys...) - 1, posts: []string{"k1 k22 k333 k4444", "k1", "k22", "k333"},
			answer: func(r request) string {
				if r.keys() == "k333" {
					return answer500
				}
				return answer204
			},
			left: []string{"k333", "k4444"}, err: "flush failed with code:500",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, e := newApp(t)
				app.limit = test.limit
				if test.answer != nil {
					app.answer = test.answer
				}
				b := batch(keys...)
				expectError(t, e.Send(t.Context(), b), test.err)
				app.expectPosts(test.posts...)
				expectLeft(t, b, test.left...)
				if len(b.Aside) != test.aside || b.InDoubt {
					t.Errorf("%v are set aside, and in doubt is %v", b.Aside, b.InDoubt)
				}
				for _, key := range keys {
					if app.saved[key] == 1 == slices.Contains(test.left, key) {
						t.Errorf("%s is saved %d times", key, app.saved[key])
					}
				}
			})
		})
	}
}

// quotes returns n keys of 18,000 quotes, which take 108 kB each, and more.
func quotes(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("%04d%s", i, strings.Repeat(`"`, 18000)))
	}
	return keys
}

func honest(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("https://example.com/%05d", i))
	}
	return keys
}

const expressLimit = 100_000

// One client sends 1,000 keys that are too large, one by one. The honest keys
// arrive in the same flush and at a stop, in some 20 more POSTs.
func TestManyKeysThatAreTooLarge(t *testing.T) {
	for _, test := range []struct {
		keys, growing int // by so many bytes from key to key, so that none is as large as another
		last          bool
		flushes       int
	}{{1000, 0, false, 1}, {100, 9, false, 3}, {100, 0, true, 2}} {
		synctest.Test(t, func(t *testing.T) {
			app, e := newApp(t)
			app.limit = expressLimit
			bad := quotes(test.keys)
			for i := range bad {
				bad[i] += strings.Repeat("x", i*test.growing)
			}
			b := batch(append(bad, honest(100)...)...)
			for i := range test.flushes {
				app.requests, app.saved = nil, make(map[string]int64)
				b.Last = test.last
				if e.Send(t.Context(), b) == nil || len(app.saved) != 100 || len(app.requests) > 21 {
					t.Errorf("flush %d: %d keys are saved by %d POSTs, want 100 by 21 at most", i, len(app.saved), len(app.requests))
				}
				b = next(b, append(honest(100), quotes(1)[0]+"new")...)
			}
		})
	}
}

// 8 such keys at an application that resets the connection: the honest keys arrive
// by the fifth flush, and in each flush after that.
func TestKeysThatAreTooLargeAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit, app.refusal = expressLimit, noAnswer
		b := batch(append(quotes(8), honest(100)...)...)
		for i := range maxTries {
			if len(app.saved) > 0 || e.Send(t.Context(), b) == nil || b.InDoubt != (i < maxTries-1) {
				t.Fatalf("try %d: in doubt is %v", i, b.InDoubt)
			}
		}
		if len(app.saved) != 100 || len(b.Aside) != 8 || !b.Doubled || len(app.requests) > 25 {
			t.Errorf("%d keys are saved by %d POSTs, %d set aside", len(app.saved), len(app.requests), len(b.Aside))
		}
		for range 3 {
			app.saved = make(map[string]int64)
			b = next(b, honest(100)...)
			if e.Send(t.Context(), b) == nil || len(app.saved) != 100 || b.InDoubt || !b.Doubled {
				t.Errorf("%d keys are saved, in doubt is %v, doubled is %v", len(app.saved), b.InDoubt, b.Doubled)
			}
		}
	})
}

// After a reset that followed the save, an application that looks at ids saves
// once, one that does not, at most twice.
func TestResetAfterTheSave(t *testing.T) {
	for _, forgets := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			app, e := newApp(t)
			app.forgets = forgets
			app.answer = func(r request) string {
				if len(app.requests) == 1 {
					app.save(r)
					return noAnswer
				}
				return answer204
			}
			b := batch(honest(100)...)
			if e.Send(t.Context(), b) == nil || !b.InDoubt || len(b.Doubtful()) != 100 {
				t.Error("the batch is not in doubt")
			}
			expectError(t, e.Send(t.Context(), b), "")
			expectLeft(t, b)
			for key, n := range app.saved {
				if n != 1 && !(forgets && n == 2) {
					t.Errorf("%s is saved %d times", key, n)
				}
			}
			if len(app.saved) != 100 || len(app.requests) != 2 || b.InDoubt {
				t.Errorf("%d keys are saved by %d POSTs", len(app.saved), len(app.requests))
			}
		})
	}
}

// An application that refuses everything does not get a POST for each key, and
// nothing is set aside for it, whether it answers with 413 or cuts the connection
// before the request is read.
func TestEverythingIsRefused(t *testing.T) {
	for _, cut := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			app, e := newApp(t)
			app.limit = 0
			posts := 0
			e.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				posts++
				ours, theirs := net.Pipe()
				if cut {
					go func() {
						theirs.Read(make([]byte, 10))
						theirs.Close()
					}()
				} else {
					go func() {
						app.serve(theirs)
						theirs.Close()
					}()
				}
				return ours, nil
			}
			b := batch(honest(10_000)...)
			for range 3 {
				posts = 0
				if e.Send(t.Context(), b) == nil || posts > 25 || len(b.Aside) > 0 || len(b.Left()) != 10_000 || b.InDoubt {
					t.Errorf("%d POSTs, %d set aside, %d left", posts, len(b.Aside), len(b.Left()))
				}
				b = next(b)
			}
			if e.limit != 0 {
				t.Errorf("the limit is %d, though nothing is known of it", e.limit)
			}
		})
	}
}

// The limit is remembered from flush to flush, and forgotten after an hour.
func TestLimitIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit = size(honest(10)...)
		expectError(t, e.Send(t.Context(), batch(honest(30)...)), "")
		app.requests = nil
		<-time.After(limitLife)
		expectError(t, e.Send(t.Context(), batch(honest(30)...)), "")
		for _, r := range app.requests {
			if len(r.body) > app.limit {
				t.Errorf("there is a POST of %d bytes, though more than %d are refused", len(r.body), app.limit)
			}
		}
		app.requests = nil
		<-time.After(time.Second)
		app.limit = 1 << 30
		expectError(t, e.Send(t.Context(), batch(honest(30)...)), "")
		if len(app.requests) != 1 {
			t.Errorf("%d POSTs, want 1", len(app.requests))
		}
	})
}

// Keys that were set aside are tried again in turn, a few at a flush, last, and
// not at a stop.
func TestKeysThatWereSetAsideAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit = expressLimit
		b := batch(append(quotes(20), "a")...)
		e.Send(t.Context(), b)
		app.requests = nil
		tried := make(map[string]int)
		for range 5 {
			b = next(b, "a")
			expectError(t, e.Send(t.Context(), b), "flush failed with code:413")
			if len(app.requests) != 1+maxRetries || app.requests[0].keys() != "a" {
				t.Errorf("%d POSTs, of which the first has %.20q", len(app.requests), app.requests[0].keys())
			}
			for _, r := range app.requests[1:] {
				tried[r.keys()]++
			}
			app.requests = nil
		}
		for key, n := range tried {
			if n != 2 || len(tried) != 20 {
				t.Errorf("%.10s is tried %d times, want 2; %d are tried, want 20", key, n, len(tried))
			}
		}

		b = next(b, "a")
		b.Last = true
		expectError(t, e.Send(t.Context(), b), errAside.Error())
		app.expectPosts("a")

		// With nothing else, the application is told that the daemon lives.
		b = next(b)
		expectError(t, e.Send(t.Context(), b), "flush failed with code:413")
		if len(app.requests) != 1+maxRetries || app.requests[0].body != "json=%7B%7D" {
			t.Errorf("%d POSTs, of which the first is %.20q", len(app.requests), app.requests[0].body)
		}
		b = next(b)
		app.requests, b.Last = nil, true
		expectError(t, e.Send(t.Context(), b), errAside.Error())
		app.expectPosts()

		// They arrive when the application accepts them.
		app.limit = 1 << 30
		for range 3 {
			b = next(b)
			e.Send(t.Context(), b)
		}
		expectLeft(t, b)
		for _, key := range quotes(20) {
			if app.saved[key] != 1 {
				t.Errorf("%.10s is saved %d times", key, app.saved[key])
			}
		}
	})
}

// What finds no room among the keys that are set aside is dropped.
func TestRoomForKeysThatAreSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit = expressLimit
		b := batch(append(quotes(5), "a")...)
		b.Room = 2 * hits.Cost(quotes(1)[0])
		e.Send(t.Context(), b)
		expectLeft(t, b, quotes(2)...)
		if len(b.Dropped) != 3 || b.Dropped[0].Key != quotes(3)[2] {
			t.Errorf("%d keys are dropped, want 3", len(b.Dropped))
		}
		b = next(b, quotes(5)[3:]...)
		e.Send(t.Context(), b)
		if len(b.Dropped) != 0 || len(b.Left()) != 4 {
			t.Errorf("%d keys are dropped though nothing was accepted, and %d left", len(b.Dropped), len(b.Left()))
		}

		b = batch(append(quotes(2), "a")...)
		e.Send(t.Context(), b)
		b = next(b, "a", quotes(1)[0][:17000])
		b.Room = 3*hits.Cost(quotes(1)[0]) + 100
		b.Last = true
		e.Send(t.Context(), b)
		if len(b.Dropped) != 0 || len(b.Aside) != 3 {
			t.Errorf("%d keys are dropped and %d set aside, want none and 3", len(b.Dropped), len(b.Aside))
		}
	})
}

// A key that is refused for another reason than its size does not keep back those
// that are larger: larger bodies are accepted, and the limit is what it was before.
func TestKeyThatIsRefusedForItsContent(t *testing.T) {
	for _, test := range []struct{ poisonous, saved, posts, aside int }{{1, 1000, 20, 1}, {20, 500, 80, 8}} {
		synctest.Test(t, func(t *testing.T) {
			app, e := newApp(t)
			app.answer = func(r request) string {
				if strings.Contains(r.keys(), "poison") {
					return answer413
				}
				return answer204
			}
			keys := honest(500)
			for _, key := range honest(500) {
				keys = append(keys, key+"longer")
			}
			e.limit, e.learned = int64(size(honest(100)...)), time.Now()
			for i := range test.poisonous {
				keys = append(keys, fmt.Sprintf("https://example.com/poison%d", i%10)+strings.Repeat("x", i/10))
			}
			b := batch(keys...)
			expectError(t, e.Send(t.Context(), b), "flush failed with code:413")
			if len(app.saved) < test.saved || len(app.requests) > test.posts || len(b.Aside) != test.aside {
				t.Errorf("%d keys are saved by %d POSTs, and %d set aside", len(app.saved), len(app.requests), len(b.Aside))
			}
			if want := int64(size(honest(100)...)); e.limit != want && test.poisonous == 1 {
				t.Errorf("the limit is %d, want %d", e.limit, want)
			}
		})
	}
}
