//go:build unix

package endpoint

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// In a search, each part gets a minute for its answer, though others have got none.
func TestMinuteForEachPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := honest(1000)
		r := newRigged(t, without("hang", keys[500]))
		b := r.batch(keys...)
		for range rowDoubt - 1 {
			r.send(b)
		}
		r.sent()
		began := time.Now()
		r.send(b)
		want := 16 * time.Minute // of the part in doubt
		if want = min(want, maxTimeout); !b.Done() {
			t.Error("the key is not found in one flush")
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.posts[1:] {
			if p.has(keys[500]) {
				want += time.Minute
			}
		}
		expectDuration(t, began, want)
	})
}

// The application begins to refuse everything in a search, also empty objects: a firewall does so after many refusals.
// Few keys are set aside then, or none if an empty object is refused first. The search ends, and is not said to be in
// vain, so that no other batch is sent to this application.
func TestEverythingIsRefusedInASearch(t *testing.T) {
	for _, status := range []string{"403 X", "500 X", "503 X"} {
		for _, small := range []bool{false, true} { // only the smallest key is accepted
			keys, bad, accepted, most, aside := honest(1000), 500, 0, 2, maxAlone
			if small {
				keys[0], keys[1], bad, most, aside = "a", "bb", 1, 1, 0
			}
			r := newKept(t, nil)
			r.decide = func(p posted) string {
				if accepted == most || p.has(keys[bad]) {
					return status
				} else if len(p.counts) > 0 {
					accepted++
				}
				return "204 X"
			}
			b := r.batch(keys...)
			vain := r.send(b).Vain
			r.accepted++ // another batch, meanwhile
			for range rowDoubt - 1 {
				vain = r.send(b).Vain || vain
			}
			if r.sent(); accepted != most {
				t.Errorf("%s: %d parts are accepted, want %d", status, accepted, most)
			}
			for range 5 {
				vain = r.send(b).Vain || vain
			}
			if vain {
				t.Errorf("%s: the search was in vain", status)
			}
			if full, _ := r.sent(); full > 5 {
				t.Errorf("%s: %d POSTs in 5 flushes after the search", status, full)
			}
			if len(r.aside) > aside {
				t.Errorf("%s: %d keys are set aside, want %d at most", status, len(r.aside), aside)
			}
		}
	}
}

// A key that is refused is no reason to set aside larger ones with it, if a smaller one was refused: the size is not the
// reason then.
func TestLargerKeyBesideBadOnes(t *testing.T) {
	bad, good := []string{"<"}, strings.Repeat("z", 500)
	for i := range 20 {
		bad = append(bad, strings.Repeat("x", 100+i), strings.Repeat("x", 600+i))
	}
	slices.Sort(bad)
	for range 5 { // Other keys are tried out of turn each time.
		r := newKept(t, without("403 X", bad...))
		r.store.Record("longer")
		b := r.batch(append([]string{"a", "longer", good}, bad...)...)
		for range 10 {
			r.send(b)
		}
		slices.Sort(r.aside)
		if !b.Done() || r.saved[good] != 1 || !slices.Equal(r.aside, bad) {
			t.Errorf("%d keys are left, and %d are set aside, want %d", len(b.Left()), len(r.aside), len(bad))
		}
	}
}

// A limit that was learned more than an hour ago does not come back when a key is set aside.
func TestLimitDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := honest(1000)
		r := newRigged(t, upTo("413 X", 5000))
		r.flushes(r.batch(keys...))
		<-time.After(3 * time.Hour)
		r.decide = without("413 X", "<")
		r.flushes(r.batch("a", "b", "<"))
		r.sent()
		r.flushes(r.batch(keys...))
		r.expectSent(1, 0)
	})
}

// Another batch was accepted after this one was refused, and then nothing is accepted any more. One key is set aside
// at most.
func TestNothingIsAcceptedAnyMore(t *testing.T) {
	for _, status := range []string{"403 X", "500 X"} {
		r := newKept(t, without(status, "<"))
		b := r.batch(append(honest(100), "<")...)
		r.send(b)
		r.send(r.batch("other"))
		r.decide = refusing(status)
		for range 20 {
			r.send(b)
		}
		if len(r.aside) > 1 {
			t.Errorf("%q: %d keys are set aside", status, len(r.aside))
		}
	}
}

// A kill has interrupted a search while a key was tried out of turn. It is this key that is refused now.
func TestKeyOutOfTurnIsRefused(t *testing.T) {
	keys := honest(100)
	r := newKept(t, nil)
	b := r.batch(keys...)
	b.Begin(60, 61)
	b.Doubt = true
	bad := b.Part()[0].Key
	r.decide = without("403 X", bad)
	r.flushes(b)
	r.expectDelivered(b, keys, bad)
}

// A kill has interrupted a search after a key was accepted out of turn. The keys behind one that is refused are not
// set aside with it, although only a smaller one was accepted.
func TestBadKeyBeforeSkip(t *testing.T) {
	all := append(honest(100), "a", "<<")
	r := newKept(t, without("403 X", "<<"))
	b := r.batch(all...)
	b.Begin(60, 61)
	b.Doubt = true
	if flushes := r.flushes(b); flushes > rowRefused {
		t.Errorf("%d flushes, want %d", flushes, rowRefused)
	}
	r.expectDelivered(b, all, "<<")
}

// A part that gets no answer is in doubt, though larger ones were cut before they were written.
func TestCutShortThenDoubt(t *testing.T) {
	keys := honest(5000)
	r := newRigged(t, nil)
	lost := 0
	saved, known := make(map[string]int64), make(map[string]bool)
	r.Endpoint = piped(t, time.Second, func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || request.ContentLength > 5000 {
			return
		}
		body, _ := io.ReadAll(request.Body)
		form, _ := url.ParseQuery(string(body))
		var counts map[string]int64
		json.Unmarshal([]byte(form.Get("json")), &counts)
		if id := request.Header.Get("Idempotency-Key"); !known[id] {
			known[id] = id != ""
			for key, n := range counts {
				saved[key] += n
			}
		}
		if lost < 3 && len(counts) > 0 {
			lost++
			return
		}
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	b := r.batch(keys...)
	for range 5 {
		if r.send(b).Doubled {
			t.Error("counts may be doubled")
		}
	}
	r.saved = saved
	r.expectDelivered(b, keys)
}

// A search in which the second try was accepted ends with the size that is known.
func TestLimitAfterASecondTry(t *testing.T) {
	keys := honest(1000)
	r := newKept(t, upTo("413 X", 5000))
	r.flushes(r.batch(keys...))
	r.decide = without("500 X", "<")
	r.flushes(r.batch("a", "b", "<"))
	tooLarge, tried := 0, false
	r.decide = func(p posted) string {
		switch {
		case p.size > 5000:
			tooLarge++
			return "413 X"
		case len(p.counts) > 0 && !tried:
			tried = true
			return "500 X"
		}
		return "204 X"
	}
	b := r.batch(keys...)
	if r.flushes(b); tooLarge > 0 || !tried {
		t.Errorf("%d parts are too large, though the limit is known", tooLarge)
	}
}

// A part that got no answer in a search is in doubt if there is no connection for the second try.
func TestSecondTryStaysInDoubt(t *testing.T) {
	keys := honest(50)
	r := newKept(t, refusing(""))
	b := r.batch(keys...)
	for range rowDoubt - 1 {
		r.send(b)
	}
	dial, dials := r.Dial, 0
	r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if dials++; dials == 5 { // after the whole, the empty object, the whole again, and the first try of a half
			return nil, io.ErrUnexpectedEOF
		}
		return dial(ctx, network, address)
	}
	r.send(b)
	if kept := r.store.Doubtful(true); dials != 5 || !b.Doubt || kept == 0 {
		t.Errorf("after %d connections, in doubt is %v", dials, b.Doubt)
	}
}

// The application cuts large bodies short, and is then not there any more. That ends the flush: the size is not the reason.
func TestApplicationGoesAwayInASearch(t *testing.T) {
	keys := honest(5000)
	r := newRigged(t, nil)
	saved, gone := 0, false
	r.Endpoint = piped(t, time.Second, func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || request.ContentLength > 50_000 {
			return
		}
		io.Copy(io.Discard, request.Body)
		saved++
		gone = true
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	dial, dials := r.Dial, 0
	r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if gone {
			dials++
			return nil, io.ErrUnexpectedEOF
		}
		return dial(ctx, network, address)
	}
	if r.send(r.batch(keys...)); saved != 1 || dials != 1 {
		t.Errorf("%d parts are saved, and then there are %d connections, want 1 and 1", saved, dials)
	}
}

// Some keys are refused with one status, and some with another one. When both are known, a search meets both without a
// question for each.
func TestTwoReasons(t *testing.T) {
	keys := honest(200)
	r := newRigged(t, func(p posted) string {
		for i, key := range keys {
			if i%40 == 7 && p.has(key) {
				return "403 X"
			} else if i%40 == 27 && p.has(key) {
				return "500 X"
			}
		}
		return "204 X"
	})
	r.flushes(r.batch(keys[:40]...))
	r.sent()
	if flushes := r.flushes(r.batch(keys[40:]...)); flushes != 1 {
		t.Errorf("%d flushes, want 1", flushes)
	}
	if _, empty := r.sent(); empty != 1 || len(r.aside) != 10 {
		t.Errorf("%d empty objects are sent, want 1, and %d keys are set aside, want 10", empty, len(r.aside))
	}
}

// Large bodies are refused with one status, and the smallest key with another one. Without a journal, each search begins
// anew with newer counts. Everything is delivered all the same.
func TestTwoReasonsWithoutAJournal(t *testing.T) {
	for _, size := range []string{"400 X", "413 X", "503 X", ""} {
		for _, status := range []string{"500 X", "403 X"} {
			large, bad := upTo(size, 2000), without(status, "<")
			r := newRigged(t, func(p posted) string {
				if answer := large(p); answer != "204 No Content" {
					return answer
				}
				return bad(p)
			})
			all := append(honest(200), "<")
			b := r.batch(all...)
			for flush := 0; r.send(b).Err != nil; flush++ {
				if flush == 30 {
					t.Fatalf("%q for the size and %q for a key: %d keys are left", size, status, len(b.Left()))
				} else if !b.Doubt {
					memo, key := b.Memo, fmt.Sprint("new", flush)
					r.store.Merge(b)
					b = r.batch(key)
					b.Memo, all = memo, append(all, key)
				}
			}
			r.expectDelivered(b, all, "<")
		}
	}
}

// A status that ends two searches, or one that says nothing of the content, is not taken for another reason.
func TestSearchEndsWithAnotherStatus(t *testing.T) {
	for _, test := range []struct {
		status   string
		searches int
		want     bool // the next search goes on
	}{{"500 X", rowRefused - 1, false}, {"500 X", rowRefused, true}, {"429 X", 9, false}, {"502 X", 9, false}} {
		large, posts := upTo("413 X", 2000), 0
		r := newRigged(t, func(p posted) string {
			if large(p) == "413 X" {
				return "413 X"
			}
			posts++
			return test.status
		})
		b := r.batch(honest(200)...)
		for i := range test.searches + 1 {
			posts = 0
			if r.send(b); posts > 1 && i < test.searches {
				t.Fatalf("%s: search %d goes on", test.status, i)
			} else if !b.Doubt {
				memo := b.Memo
				r.store.Merge(b)
				b = r.batch()
				b.Memo = memo
			}
		}
		if got := posts > 1; got != test.want {
			t.Errorf("%s after %d searches: the next one goes on is %v", test.status, test.searches, got)
		}
	}
}

// An earlier process has sent all but the last key, which is refused. That others were accepted shows that the key is the
// reason.
func TestLastKeyIsRefused(t *testing.T) {
	keys := honest(20)
	r := newKept(t, without("403 X", "a longer key than all others"+keys[19]))
	b := r.batch(append(keys, "a longer key than all others"+keys[19])...)
	b.Begin(0, 20)
	b.Accepted()
	if flushes := r.flushes(b); flushes != rowRefused || len(r.aside) != 1 {
		t.Errorf("%q are set aside after %d flushes, want one key after %d", r.aside, flushes, rowRefused)
	}
}

// A kill has interrupted a search after a key was accepted out of turn, and there are many smaller keys that are refused.
// They are found without pauses.
func TestManyBadKeysBeforeSkip(t *testing.T) {
	var bad []string
	for i := range 60 {
		bad = append(bad, fmt.Sprintf("<%02d", i))
	}
	all := append(honest(100), bad...)
	r := newKept(t, without("403 X", bad...))
	b := r.batch(all...)
	b.Begin(130, 131)
	b.Doubt = true
	if flushes := r.flushes(b); flushes > 15 {
		t.Errorf("%d flushes", flushes)
	}
	r.expectDelivered(b, all, bad...)
}

// A request that was answered before it was written whole is not one that the application has read: if the next one is cut
// short, the size may be the reason.
func TestCutShortAfterAnEarlyAnswer(t *testing.T) {
	r, posts := newKept(t, nil), 0
	r.Endpoint = piped(t, time.Second, func(conn net.Conn) {
		posts++
		if posts == 1 {
			conn.Read(make([]byte, 1))
			io.WriteString(conn, "HTTP/1.1 503 Busy\r\n\r\n")
			return
		}
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || request.ContentLength > 50_000 {
			return
		}
		io.Copy(io.Discard, request.Body)
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	b := r.batch(honest(5000)...)
	r.send(b)
	if report := r.send(b); report.Err != nil || !b.Done() {
		t.Errorf("after %d POSTs, the report is %+v", posts, report)
	}
}
