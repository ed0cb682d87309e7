package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
)

// script returns an answer function that gives one answer after the other, and
// then 204. An answer that begins with "saved " is given after the counts are
// saved.
func (a *app) script(answers ...string) func(request) string {
	return func(r request) string {
		if len(answers) == 0 {
			return answer204
		}
		answer := answers[0]
		answers = answers[1:]
		if rest, saved := strings.CutPrefix(answer, "saved "); saved {
			a.save(r)
			return rest
		}
		return answer
	}
}

// Once a batch is in doubt, it stays as it is, and its id, until it is accepted: no
// other answer says anything of the POST before.
func TestOnly2xxSettlesABatchInDoubt(t *testing.T) {
	for name, first := range map[string]string{
		"closed":       "saved " + noAnswer,
		"no answer":    "saved " + hang,
		"502":          "saved " + answer502,
		"no HTTP":      "saved hello\r\n",
		"half of it":   "saved HTTP/1.1 2",
		"not saved":    noAnswer,
		"an other 5xx": "saved HTTP/1.1 522 Timed Out\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, e := newApp(t)
				app.answer = app.script(first, answer500, "HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n", answer413,
					noAnswer, "hello\r\n", hang, answer502, "HTTP/1.1 302 Found\r\n\r\n")
				dial := e.Dial
				b := batch("a", "b")
				for i := range 12 {
					if e.Dial = dial; i == 10 {
						e.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") }
					}
					err := e.Send(t.Context(), b)
					synctest.Wait()
					if last := i == 11; (err == nil) != last || b.InDoubt == last || (len(b.Doubtful()) == 2) == last {
						t.Fatalf("try %d: error %v, in doubt is %v", i, err, b.InDoubt)
					}
				}
				if app.saved["a"] != 1 || app.saved["b"] != 1 || b.Doubled {
					t.Errorf("saved %v, want each once", app.saved)
				}
				expectLeft(t, b)
			})
		})
	}
}

// After an answer that says no, a batch is not in doubt.
func TestRefusedBatchIsNotInDoubt(t *testing.T) {
	for _, answer := range []string{answer500, answer413, "HTTP/1.1 503 Busy\r\n\r\n", "HTTP/1.1 101 X\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			app, e := newApp(t)
			app.answer = app.script(answer, answer)
			b := batch("a")
			if e.Send(t.Context(), b) == nil || b.InDoubt || b.Doubtful() != nil {
				t.Errorf("%.20q: in doubt is %v", answer, b.InDoubt)
			}
			expectLeft(t, b, "a")
		})
	}
}

// After five cuts in a row, or five answers of 413, a batch in doubt is sent in
// parts. Any other outcome restarts the count.
func TestBatchInDoubtIsSearchedAfterFiveTries(t *testing.T) {
	cut, large, other := noAnswer, answer413, answer500
	for name, test := range map[string]struct {
		answers []string
		sends   int
	}{
		"cuts":                {[]string{cut, cut, cut, cut, cut}, 5},
		"413":                 {[]string{"hello", large, large, large, large, large}, 6},
		"cuts and another":    {[]string{cut, cut, cut, cut, other, cut, cut, cut, cut, cut}, 10},
		"cuts and 413":        {[]string{cut, cut, cut, cut, large, large, large, large, cut, cut, cut, cut, cut}, 13},
		"413 and a time-out":  {[]string{cut, large, large, large, large, hang, large, large, large, large, large}, 11},
		"a 502, then cuts":    {[]string{answer502, cut, cut, cut, cut, cut}, 6},
		"accepted in the end": {[]string{cut, cut, cut, cut}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				app, e := newApp(t)
				app.answer = app.script(test.answers...)
				b, id := batch(honest(4)...), ""
				for i := range test.sends {
					if i > 0 && !b.InDoubt {
						t.Fatalf("not in doubt after %d sends", i)
					}
					app.requests = nil
					err := e.Send(t.Context(), b)
					synctest.Wait()
					if last := i == test.sends-1; (err == nil) != last {
						t.Fatalf("send %d: %v", i, err)
					}
					if i == 0 {
						id = app.requests[0].id
					}
					if app.requests[0].id != id || len(app.requests[0].counts) != 4 {
						t.Errorf("send %d: the id is %s, want %s", i, app.requests[0].id, id)
					}
				}
				if parts := len(app.requests) > 1; parts != b.Doubled || parts != (name != "accepted in the end") {
					t.Errorf("%d POSTs in the last send, doubled is %v", len(app.requests), b.Doubled)
				}
				expectLeft(t, b)
			})
		})
	}
}

// If not even the smallest key is accepted in the search, the batch may be merged
// with others: otherwise it would keep them back for ever.
func TestSearchThatFindsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.answer = func(request) string { return noAnswer }
		b := batch(honest(100)...)
		for i := range maxTries {
			if e.Send(t.Context(), b) == nil || b.InDoubt != (i < maxTries-1) {
				t.Errorf("try %d: in doubt is %v", i, b.InDoubt)
			}
		}
		if len(b.Left()) != 100 || len(b.Aside) > 0 || len(app.requests) > 25 || !b.Doubled {
			t.Errorf("%d keys are left, %d set aside, after %d POSTs", len(b.Left()), len(b.Aside), len(app.requests))
		}

		// Another failure ends the search, and the batch is in doubt as it was.
		b = batch(honest(100)...)
		app.requests = nil
		app.answer = app.script(noAnswer, noAnswer, noAnswer, noAnswer, noAnswer, noAnswer, noAnswer, answer500, "end")
		for range maxTries + 1 {
			if e.Send(t.Context(), b) == nil || !b.InDoubt || len(b.Doubtful()) != 100 {
				t.Errorf("in doubt is %v, with %d keys", b.InDoubt, len(b.Doubtful()))
			}
		}
		if first, last := app.requests[0], app.requests[len(app.requests)-1]; first.id != last.id {
			t.Errorf("the id is %s, want %s", last.id, first.id)
		}
	})
}

// A part in doubt ends a flush. The next one sends the same part under the same
// id, then the rest. What was accepted is not sent again.
func TestPartInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit = size(honest(40)...)
		app.answer = app.script(answer204, answer204, "saved "+answer502)
		b := batch(honest(100)...)
		// The first answers are for those that are too large, which are refused anyway.
		expectError(t, e.Send(t.Context(), b), "flush failed with code:502")
		doubtful := b.Doubtful()
		last := app.requests[len(app.requests)-1]
		unsaved := 100 - len(app.saved)
		if !b.InDoubt || len(doubtful) == 0 || len(doubtful) != len(last.counts) || len(b.Left()) != unsaved+len(doubtful) {
			t.Errorf("%d keys are in doubt, %d left and %d saved", len(doubtful), len(b.Left()), len(app.saved))
		}
		if !strings.HasPrefix(last.id, b.ID+".") {
			t.Errorf("the id of the part is %s, of the batch %s", last.id, b.ID)
		}

		// After a crash, the same part is made of what a journal keeps.
		again := NewBatch(slices.Clone(b.List), nil)
		again.ID, again.First, again.End, again.InDoubt = b.ID, b.First, b.End, true
		app.requests = nil
		expectError(t, e.Send(t.Context(), again), "")
		if app.requests[0].id != last.id || app.requests[0].body != last.body {
			t.Errorf("the first POST has the id %s, want %s", app.requests[0].id, last.id)
		}
		expectLeft(t, again)
		for _, key := range honest(100) {
			if app.saved[key] != 1 {
				t.Errorf("%s is saved %d times", key, app.saved[key])
			}
		}
	})
}

// When the delivery is abandoned, a batch that was sent is in doubt.
func TestAbandonedBatchIsInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.answer = func(request) string { return hang }
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("it is over")) })
		b := batch("a")
		expectError(t, e.Send(ctx, b), "cannot connect to endpoint : it is over")
		if !b.InDoubt {
			t.Error("the batch is not in doubt")
		}
		b = batch("a")
		expectError(t, e.Send(ctx, b), "cannot connect to endpoint : it is over")
		if b.InDoubt {
			t.Error("a batch is in doubt, though it was not sent")
		}
	})
}

// notes is a Keeper that notes what is called.
type notes []string

func (n *notes) SetProgress(first, end int) { *n = append(*n, fmt.Sprintf("%d-%d", first, end)) }

func (n *notes) SetAside(aside func(string) bool) {
	for _, key := range []string{"a", "b", "long", "longer"} {
		if aside(key) {
			*n = append(*n, "aside "+key)
		}
	}
}

func (n *notes) Replace(list []hits.Count, aside map[string]bool) string {
	*n = append(*n, fmt.Sprint("replace ", list, " ", len(aside)))
	return "the-id-of-the-journal-has-26-letters"
}

// The progress is kept before each POST, and keys that are set aside before the
// progress moves past them.
func TestKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app, e := newApp(t)
		app.limit = size("long")
		kept := new(notes)
		app.answer = func(r request) string {
			*kept = append(*kept, "POST "+r.keys())
			return answer204
		}
		b := batch("a", "b", "longer", "long")
		b.Keeper = kept
		e.limit, e.learned = int64(size("a", "b")), time.Now()
		e.Send(t.Context(), b)
		want := []string{"0-2", "POST a b", "0-1", "POST a", "1-2", "POST b",
			"2-3", "POST long", "3-4", "POST longer", "aside longer", "4-4"}
		if !slices.Equal(*kept, want) {
			t.Errorf("kept %q, want %q", *kept, want)
		}

		*kept = nil
		b = next(b)
		b.Keeper = kept
		e.Send(t.Context(), b)
		want = []string{"POST ", "replace [{longer 1}] 0", "0-1", "POST longer", "aside longer", "1-1"}
		if !slices.Equal(*kept, want) || b.ID != "the-id-of-the-journal-has-26-letters" {
			t.Errorf("kept %q, want %q", *kept, want)
		}
	})
}
