package endpoint

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
)

// without accepts everything but counts with one of the keys.
func without(status string, bad ...string) func(posted) string {
	return func(p posted) string {
		if slices.ContainsFunc(bad, p.has) {
			return status
		}
		return "204 No Content"
	}
}

// upTo accepts bodies up to a size.
func upTo(status string, size int64) func(posted) string {
	return func(p posted) string {
		if p.size > size {
			return status
		}
		return "204 No Content"
	}
}

// flushes sends b until it is delivered, and returns how many flushes that took.
func (r *rigged) flushes(b *hits.Batch) (n int) {
	r.t.Helper()
	for n = 1; n < 200; n++ {
		if report := r.send(b); report.Err == nil {
			return n
		}
	}
	r.t.Errorf("the batch is never delivered")
	return n
}

// One key that is refused is found, wherever it stands, and everything else is delivered in
// the same flush.
func TestOneBadKey(t *testing.T) {
	const n = 5000
	keys := honest(n)
	for _, status := range []string{"403 X", "400 X", "422 X", "500 X", "413 X", "503 X", "504 X", ""} {
		for _, bad := range []string{"<b>", keys[0], keys[16], keys[n/2], keys[n-1], strings.Repeat("<", 5000)} {
			r := newRigged(t, without(status, bad))
			all := keys
			if !slices.Contains(keys, bad) {
				all = append(slices.Clip(keys), bad)
			}
			b := r.batch(all...)
			want := 3
			switch status {
			case "413 X":
				want = 1
			case "503 X", "504 X", "":
				want = 5
			}
			if got := r.flushes(b); got != want {
				t.Errorf("%q, %.30q: %d flushes, want %d", status, bad, got, want)
			}
			r.expectDelivered(b, all, bad)
			if full, empty := r.sent(); full > 60 || empty > 1 {
				t.Errorf("%q, %.30q: %d POSTs of counts and %d empty ones", status, bad, full, empty)
			}
		}
	}
}

// A part that is refused is halved. One that is accepted is followed by one of the same size, within what was refused,
// and else by one that is twice as large.
func TestSizesOfParts(t *testing.T) {
	var keys []string
	for i := range 1024 {
		keys = append(keys, fmt.Sprint(1000+i))
	}
	r := newRigged(t, without("403 X", keys[400]))
	r.flushes(r.batch(keys...))
	refused, found, last := 0, false, 1
	for _, p := range r.posts[rowRefused:] {
		n := len(p.counts)
		if p.has(keys[400]) {
			refused++
			found = n == 1
		} else if found && (n > 2*last+2 || n < last && !p.has(keys[1023])) {
			t.Errorf("a part of %d keys follows one of %d", n, last)
		}
		last = n
	}
	if refused > 10 {
		t.Errorf("%d parts with the key are refused, want 10 at most", refused)
	}
}

// Keys that are refused need not be few, and may be the smallest ones.
func TestManyBadKeys(t *testing.T) {
	keys := honest(2000)
	var small, spread []string
	for i := range 30 {
		small = append(small, fmt.Sprint("<", i))
	}
	for i := 7; i < len(keys); i += 100 {
		spread = append(spread, keys[i])
	}
	for name, bad := range map[string][]string{"the smallest": small, "spread": spread} {
		r := newRigged(t, without("403 X", bad...))
		all := slices.Concat(keys, small)
		b := r.batch(all...)
		for flush := 1; !b.Done() && flush < 20; flush++ {
			r.send(b)
			refused := 0
			for _, p := range r.posts {
				if slices.ContainsFunc(bad, p.has) {
					refused++
				}
			}
			if r.sent(); refused > MaxRefused {
				t.Errorf("%s: %d POSTs of a flush are refused", name, refused)
			}
			if b.Kept() || b.Doubt {
				t.Fatalf("%s: the batch is in doubt", name)
			}
			if !b.Done() { // What is left is merged with newer counts.
				memo := b.Memo
				r.store.Merge(b)
				b = r.batch("new")
				b.Memo = memo
				all = append(all, "new")
			}
		}
		slices.Sort(r.aside)
		slices.Sort(bad)
		if !slices.Equal(r.aside, bad) {
			t.Errorf("%s: %d keys are set aside, want %d: %.200q", name, len(r.aside), len(bad), r.aside)
		}
	}
}

// A client makes up many keys that are refused, and each has one hit. They are far more than the honest ones, which arrive
// all the same, as these have more hits.
func TestScanner(t *testing.T) {
	for _, status := range []string{"403 X", "500 X", "503 X"} {
		for _, n := range []int{100, 1000} {
			keys, bad := honest(10), []string{"'"}
			for i := range n {
				bad = append(bad, fmt.Sprint("'", strings.Repeat("x", i%60), i))
			}
			r := newRigged(t, without(status, bad...))
			for range 2 {
				for _, key := range keys {
					r.store.Record(key)
				}
			}
			missing := func(key string) bool { return r.saved[key] == 0 }
			b, flushes := r.batch(slices.Concat(keys, bad)...), 0
			for ; slices.ContainsFunc(keys, missing) && flushes < 60; flushes++ {
				r.send(b)
				if r.sent(); !b.Done() && !b.Doubt {
					memo := b.Memo
					r.store.Merge(b)
					b = r.batch("new")
					b.Memo = memo
				}
			}
			if slices.ContainsFunc(keys, missing) {
				t.Errorf("%s, %d keys: after %d flushes, %d are saved", status, n, flushes, len(r.saved))
			}
		}
	}
}

// An application may refuse a large body before it has read it.
func TestEarlyRefusal(t *testing.T) {
	for _, status := range []string{"400 X", "500 X"} {
		r := newRigged(t, nil)
		saved, empty := make(map[string]int64), 0
		r.Endpoint = piped(t, time.Second, func(conn net.Conn) {
			request, err := http.ReadRequest(bufio.NewReader(conn))
			if err != nil {
				return
			} else if request.ContentLength > 100_000 {
				fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", status)
				return
			}
			var counts map[string]int64
			if err := json.Unmarshal([]byte(request.FormValue("json")), &counts); err != nil {
				t.Error(err)
			} else if len(counts) == 0 {
				empty++
			}
			for key, n := range counts {
				saved[key] += n
			}
			io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
		})
		keys := honest(5000)
		b := r.batch(keys...)
		if got := r.flushes(b); got != rowRefused || empty != 1 {
			t.Errorf("%s: %d flushes with %d empty objects, want %d with 1", status, got, empty, rowRefused)
		}
		r.saved = saved
		r.expectDelivered(b, keys)
	}
}

// Bodies that are too large are sent in parts, whatever the application says of them.
func TestTooLarge(t *testing.T) {
	keys := honest(20_000)
	for status, flushes := range map[string]int{"413 X": 1, "400 X": 3, "500 X": 3, "503 X": 5, "": 5} {
		r := newRigged(t, upTo(status, 100_000))
		b := r.batch(keys...)
		if got := r.flushes(b); got != flushes {
			t.Errorf("%q: %d flushes, want %d", status, got, flushes)
		}
		r.expectDelivered(b, keys)
		if full, _ := r.sent(); full > 45 {
			t.Errorf("%q: %d POSTs", status, full)
		}
	}
}

// A key that is larger than the application takes is set aside, and so are all that are as large or
// larger, without a POST for each.
func TestKeysThatAreTooLarge(t *testing.T) {
	keys := honest(1000)
	var large []string
	for i := range 50 {
		large = append(large, strings.Repeat("x", 5000+i))
	}
	for _, status := range []string{"413 X", "400 X"} {
		r := newRigged(t, upTo(status, 4000))
		all := slices.Concat(keys, large)
		b := r.batch(all...)
		r.flushes(b)
		r.expectDelivered(b, all, large...)
		alone := 0
		for _, p := range r.posts {
			if len(p.counts) == 1 && p.size > 4000 {
				alone++
			}
		}
		if alone > maxAlone {
			t.Errorf("%s: %d large keys are sent alone, want %d at most", status, alone, maxAlone)
		}
	}
}

// Some servers cut the connection in place of answering with 413. The whole is not written then, and a part
// is not in doubt.
func TestCutShort(t *testing.T) {
	r := newRigged(t, nil)
	keys, saved := honest(20_000), 0
	r.Endpoint = piped(t, time.Second, func(conn net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil || request.ContentLength > 400_000 {
			return // A pipe has no buffer: the rest is not written.
		}
		io.Copy(io.Discard, request.Body)
		saved++
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\n\r\n")
	})
	b := r.batch(keys...)
	report := r.send(b)
	if report != (Report{}) || !b.Done() || saved < 2 {
		t.Errorf("after %d parts, the report is %+v", saved, report)
	}
	if r.limit != 0 {
		t.Errorf("a connection that is cut leaves the limit %d", r.limit)
	}
}

// If nothing is accepted, nothing is set aside, and the POSTs are few.
func TestEverythingIsRefused(t *testing.T) {
	for _, status := range []string{"403 X", "400 X", "500 X", "503 X", "413 X"} {
		for _, n := range []int{1, 5, 5000} {
			r := newRigged(t, refusing(status))
			b := r.batch(honest(n)...)
			for range 8 {
				if report := r.send(b); report.Err == nil || b.First > 0 {
					t.Fatalf("%s: the report is %+v", status, report)
				}
				if full, _ := r.sent(); full > 40 { // A part in doubt is sent twice.
					t.Errorf("%s: %d POSTs in a flush", status, full)
				}
			}
			if len(r.aside) > 0 {
				t.Errorf("%s: %q are set aside", status, r.aside)
			}
			// When it is mended, everything arrives at once.
			r.answer("200 OK")
			r.send(b)
			r.expectDelivered(b, honest(n))
		}
	}
}

// A part in doubt does not hold back newer counts after a search that has found nothing, until the empty object is
// refused as well.
func TestVainSearch(t *testing.T) {
	r := newRigged(t, refusing("503 X"))
	b := r.batch("a")
	vain := Report{Answered: true, Vain: true, Doubled: true}
	for flush, want := range []Report{{}, {}, {}, {}, vain, {Answered: true}, {}, {}} {
		if flush == 6 {
			r.answer("503 X")
		}
		got := r.send(b)
		if got.Err = nil; got != want {
			t.Errorf("the report of flush %d is %+v, want %+v", flush, got, want)
		}
	}
	r.expectSent(9, 2)
}

// A key that is alone in its batch is set aside if another batch was accepted since it was first refused.
func TestBadKeyAlone(t *testing.T) {
	r := newRigged(t, without("403 X", "<b>", "<c>"))
	bad := r.batch("<b>")
	for range 2 {
		r.send(bad)
	}
	other := r.batch("a")
	r.send(other)
	r.send(bad)
	r.expectDelivered(bad, []string{"a"}, "<b>")
	if got := r.flushes(r.batch("c", "<c>")); got != 1 {
		t.Errorf("%d flushes with the next key, want 1", got)
	}
}

// With a status of 500 and above, no more than 31 keys are set aside in a search: then the application is
// broken in part.
func TestBrokenInPart(t *testing.T) {
	for status, want := range map[string]int{"500 X": maxBroken - 1, "403 X": 40} {
		var bad []string
		for i := range 40 {
			bad = append(bad, fmt.Sprintf("%d%s", 1000+i, strings.Repeat("y", 60)))
		}
		r := newRigged(t, without(status, bad...))
		b := r.batch(slices.Concat(honest(10), bad)...)
		for range 3 {
			r.send(b)
		}
		if len(r.aside) != want {
			t.Errorf("%s: %d keys are set aside, want %d", status, len(r.aside), want)
		}
	}
}

// For an hour after something was found, the first refusal with that status starts a search.
func TestStatusIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigged(t, without("403 X", "<a>", "<b>"))
		r.flushes(r.batch("a", "b", "<a>"))
		for _, test := range []struct {
			after   time.Duration
			flushes int
		}{{59 * time.Minute, 1}, {61 * time.Minute, 3}} {
			<-time.After(test.after)
			if got := r.flushes(r.batch("a", "b", "<b>")); got != test.flushes {
				t.Errorf("%d flushes after %v, want %d", got, test.after, test.flushes)
			}
		}
	})
}

// What leaves a part in doubt is no refusal in another search, though it was one within the hour.
func TestDoubtIsNotRemembered(t *testing.T) {
	r := newRigged(t, without("503 X", "<a>"))
	r.flushes(r.batch("a", "b", "<a>"))
	posts, bad := 0, without("403 X", "<b>")
	r.decide = func(p posted) string {
		if posts++; posts == rowRefused+2 { // after the empty object
			return "503 X"
		}
		return bad(p)
	}
	b := r.batch(append(honest(100), "<b>")...)
	for range rowRefused {
		r.send(b)
	}
	if posts != rowRefused+2 || !b.Doubt {
		t.Errorf("after %d POSTs, in doubt is %v", posts, b.Doubt)
	}
}

// What a 413 has refused is remembered for an hour, if something was accepted in that search.
func TestLimitIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := honest(1000)
		r := newRigged(t, upTo("413 X", 5000))
		refused := func() (n int) {
			for _, p := range r.posts {
				if p.size > 5000 {
					n++
				}
			}
			r.posts = nil
			return n
		}
		r.flushes(r.batch(keys...))
		if refused() == 0 {
			t.Error("no POST was refused")
		}
		<-time.After(59 * time.Minute)
		r.flushes(r.batch(keys...))
		if n := refused(); n > 0 {
			t.Errorf("%d POSTs are refused within the hour", n)
		}
		<-time.After(61 * time.Minute)
		r.answer("200 OK")
		r.flushes(r.batch(keys...))
		r.expectSent(1, 0)

		r.decide = refusing("413 X")
		r.send(r.batch(keys...))
		if time.Since(r.limited) == 0 {
			t.Error("a limit is learned though nothing was accepted")
		}
	})
}

// A key that is refused says nothing of the size that is accepted: what was known of that before the search stays so.
func TestKeyLeavesTheLimit(t *testing.T) {
	r := newRigged(t, upTo("413 X", 5000))
	r.flushes(r.batch(honest(1000)...))
	limit := r.limit
	r.decide = without("413 X", "<")
	r.flushes(r.batch("a", "b", "<", "longer", "longest"))
	if len(r.aside) != 1 || limit == 0 || r.limit != limit {
		t.Errorf("%q are set aside, and the limit is %d, want %d", r.aside, r.limit, limit)
	}
}

// In a search, a part gets a minute for its answer, though the interval is longer.
func TestMinuteInASearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigged(t, func(p posted) string {
			if len(p.counts) > 1 {
				return "413 X"
			}
			return "hang"
		})
		r.timeout = 5 * time.Minute
		b, began := r.batch("a", "b"), time.Now()
		r.send(b)
		expectDuration(t, began, time.Minute)
		r.expectSent(2, 0)
	})
}

// Any other failure ends a search for this flush. It goes on in the next one.
func TestSearchIsInterrupted(t *testing.T) {
	keys := honest(1000)
	for _, status := range []string{"", "502 X", "429 X"} {
		posts := 0
		bad := without("403 X", keys[500])
		r := newRigged(t, func(p posted) string {
			if posts++; posts == 10 {
				return status
			}
			return bad(p)
		})
		b := r.batch(keys...)
		want := 4
		if status != "429 X" {
			want = 8 // A part in doubt needs five tries.
		}
		if got := r.flushes(b); got != want {
			t.Errorf("%q: %d flushes, want %d", status, got, want)
		}
		r.expectDelivered(b, keys, keys[500])
	}
}

// It is said if counts may be saved twice, and only then.
func TestDoubled(t *testing.T) {
	keys := honest(100)
	for status, want := range map[string]bool{"403 X": false, "413 X": false, "503 X": true, "": true} {
		r := newRigged(t, without(status, keys[50]))
		b, doubled := r.batch(keys...), false
		for range 6 {
			doubled = r.send(b).Doubled || doubled
		}
		if r.expectDelivered(b, keys, keys[50]); doubled != want {
			t.Errorf("%q: doubled is %v", status, doubled)
		}
	}
}

// A search that a kill has interrupted goes on: a key that is done with out of turn stays so.
func TestSkip(t *testing.T) {
	keys := honest(100)
	r := newRigged(t, without("403 X", "<", ">"))
	all := slices.Concat(keys, []string{"<", ">"})
	b := r.batch(all...)
	r.Send(t.Context(), b, nil, nil)
	b.Begin(60, 61) // as if the process had been killed while the key was sent
	b.Doubt = true
	r.flushes(b)
	r.expectDelivered(b, all, "<", ">")
}
