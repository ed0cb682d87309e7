//go:build unix

package endpoint

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"

	"pixel-ping/internal/hits"
)

// newKept returns an application as newRigged does. The Store has a journal.
func newKept(t *testing.T, decide func(posted) string) *rigged {
	r := newRigged(t, decide)
	store, err := hits.Open(1<<30, t.TempDir(), func(line string) { t.Errorf("told: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r.store = store
	return r
}

// A search of a batch that the journal keeps goes on in the next flush, without another question.
func TestSearchGoesOn(t *testing.T) {
	keys := honest(2000)
	var bad []string
	for i := 7; i < len(keys); i += 100 {
		bad = append(bad, keys[i])
	}
	r := newKept(t, without("403 X", bad...))
	b := r.batch(keys...)
	for flush := 1; flush <= 5 && !b.Done(); flush++ {
		r.send(b)
		refused := 0
		for _, p := range r.posts {
			if slices.ContainsFunc(bad, p.has) {
				refused++
			}
		}
		want := 0
		if flush == rowRefused {
			want = 1
		}
		if _, empty := r.sent(); empty != want || flush < rowRefused && refused != 1 || refused > 100 {
			t.Errorf("flush %d has %d refused POSTs and %d empty ones", flush, refused, empty)
		}
	}
	r.expectDelivered(b, keys, bad...)
}

// In a search, what is refused with a status of 500 or above, or cut after it was written, may be saved. It is sent
// once more, as it was, before it is divided or set aside, and nothing else is.
func TestSecondTry(t *testing.T) {
	keys := honest(300)
	for status, want := range map[string]int{"500 X": 2, "503 X": 2, "": 2, "403 X": 1, "413 X": 1} {
		r := newKept(t, without(status, keys[100]))
		b := r.batch(keys...)
		r.flushes(b)
		r.expectDelivered(b, keys, keys[100])
		whole, tries := r.posts[0].id, make(map[string]int)
		for i, p := range r.posts {
			if tries[p.id]++; p.id != "" && tries[p.id] > 1 && p.id != whole && r.posts[i-1].id != p.id {
				t.Errorf("%q: %s is sent again after another part", status, p.id)
			}
		}
		for _, p := range r.posts {
			if p.id != whole && p.has(keys[100]) && tries[p.id] != want {
				t.Errorf("%q: a part with the key is sent %d times, want %d", status, tries[p.id], want)
			} else if p.id != "" && !p.has(keys[100]) && tries[p.id] != 1 {
				t.Errorf("%q: a part that is accepted is sent %d times", status, tries[p.id])
			}
		}
	}
}

// A part is saved in a search, and there is no answer. Then there is no connection for the second try, or the process
// is about to end. The next flush sends the part as it was.
func TestSecondTryFails(t *testing.T) {
	keys := honest(300)
	for _, status := range []string{"500 X", "503 X", ""} {
		for _, ends := range []bool{false, true} {
			ctx, cancel := context.WithCancel(t.Context())
			var r *rigged
			saved := ""
			r = newKept(t, func(p posted) string {
				switch {
				case len(p.counts) == len(keys) || p.has(keys[299]):
					return status
				case len(p.counts) > 0 && saved == "":
					saved = p.id
					r.known[p.id] = true
					for key, n := range p.counts {
						r.saved[key] += n
					}
					return status
				}
				return "204 No Content"
			})
			dial, down := r.Dial, false
			r.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				r.mu.Lock()
				defer r.mu.Unlock()
				if saved != "" && !down {
					down = true
					if ends {
						cancel()
					}
					return nil, io.ErrUnexpectedEOF
				}
				return dial(ctx, network, address)
			}
			b, budget := r.batch(keys...), MaxRefused
			for range 10 {
				if r.Send(ctx, b, &budget, func(list []hits.Count) { r.aside = append(r.aside, list[0].Key) }); down {
					break
				}
			}
			if id := `"` + b.PartID() + `"`; id != saved || b.From == b.End {
				t.Errorf("%q, stop is %v: the part under way is %s, want %s", status, ends, id, saved)
			}
			r.flushes(b)
			r.expectDelivered(b, keys, keys[299])
			cancel()
		}
	}
}

// The application is down until the try that begins a search. It saves that one, and its answer is lost. The counts are sent
// once more before they are divided.
func TestLastTryIsSaved(t *testing.T) {
	keys := honest(10)
	for status, tries := range map[string]int{"500 X": rowRefused, "503 X": rowDoubt, "": rowDoubt} {
		var r *rigged
		r = newKept(t, func(p posted) string {
			if len(p.counts) == 0 {
				return "204 No Content"
			}
			if tries--; tries == 0 {
				r.known[p.id] = true
				for key, n := range p.counts {
					r.saved[key] += n
				}
			}
			if tries < 0 {
				return "204 No Content"
			}
			return status
		})
		b := r.batch(keys...)
		r.flushes(b)
		r.expectDelivered(b, keys)
		r.sent()
		tries = 2
		r.send(r.batch("later")) // Nothing was found, so one failure begins no search.
		r.expectSent(1, 0)
	}
}

// A part is answered with 409. Then it is saved, and answered with a status that is known to be for the content. It is
// sent once more before it is divided.
func TestSecondTryAfterAnotherStatus(t *testing.T) {
	answers := []string{"409 X", "500 X"}
	r := newKept(t, without("500 X", "<"))
	r.flushes(r.batch("a", "b", "<"))
	r.aside = nil
	known, saved := make(map[string]bool), 0
	r.decide = func(p posted) string {
		switch {
		case len(p.counts) == 0 || known[p.id]:
			return "204 X"
		case len(answers) > 0:
			answer := answers[0]
			if answers = answers[1:]; len(answers) > 0 {
				return answer
			}
			known[p.id] = true
			saved++
			return answer
		}
		saved++
		return "204 X"
	}
	b := r.batch(honest(10)...)
	for range 3 {
		r.send(b)
	}
	if saved != 1 || !b.Done() || len(r.aside) > 0 {
		t.Errorf("%d parts are saved, want 1; %q are set aside", saved, r.aside)
	}
}

// Two statuses are known to be for the content, and a key is answered with both in turn. It is sent twice each time, and no
// more often.
func TestSecondTryOfTwoStatuses(t *testing.T) {
	r := newKept(t, nil)
	for _, status := range []string{"500 X", "501 X"} {
		r.decide = without(status, "<")
		r.flushes(r.batch("a", "b", "<"))
	}
	refused := 0
	r.decide = func(p posted) string {
		if !p.has("<") {
			return "204 X"
		}
		refused++
		return []string{"500 X", "501 X"}[refused%2]
	}
	r.flushes(r.batch(append(honest(100), "<")...))
	if refused > 30 {
		t.Errorf("%d POSTs are refused", refused)
	}
}
