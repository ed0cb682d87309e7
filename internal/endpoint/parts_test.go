package endpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pixel-ping/internal/hits"
)

// limited is an application that refuses requests of more than limit bytes of
// keys as too large, and those with a key in refuses with an error of its own.
type limited struct {
	limit    int
	refuses  map[string]error
	received map[string]int64
	posts    int
}

func (l *limited) post(_ context.Context, counts []hits.Count) error {
	l.posts++
	size := 0
	for _, count := range counts {
		size += len(count.Key)
		if err := l.refuses[count.Key]; err != nil && len(counts) == 1 {
			return err
		}
	}
	if size > l.limit {
		return ErrTooLarge
	}
	for _, count := range counts {
		l.received[count.Key] += count.Hits
	}
	return nil
}

func TestTooLargeIsHalved(t *testing.T) {
	trouble := errors.New("flush failed with code:500")
	for name, test := range map[string]struct {
		app   limited
		left  []string
		err   error
		posts int
	}{
		"all of it in parts": {
			app: limited{limit: 4}, posts: 3,
		},
		"down to single keys": {
			app: limited{limit: 2}, posts: 7,
		},
		"one key alone too large": {
			app:  limited{limit: 2, refuses: map[string]error{"k2": ErrTooLarge}},
			left: []string{"k2"}, err: ErrTooLarge, posts: 7,
		},
		"all keys too large": {
			app:  limited{limit: 1},
			left: []string{"k1", "k2", "k3", "k4"}, err: ErrTooLarge, posts: 7,
		},
		"another failure in a first half": {
			app:  limited{limit: 2, refuses: map[string]error{"k2": trouble}},
			left: []string{"k2", "k3", "k4"}, err: trouble, posts: 4,
		},
		"another failure in a second half": {
			app:  limited{limit: 2, refuses: map[string]error{"k1": ErrTooLarge, "k2": trouble}},
			left: []string{"k1", "k2", "k3", "k4"}, err: trouble, posts: 4,
		},
		"a key alone that is cut": {
			app:  limited{limit: 2, refuses: map[string]error{"k2": ErrCut}},
			left: []string{"k2"}, err: ErrCut, posts: 7,
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := map[string]int64{"k1": 1, "k2": 1, "k3": 1, "k4": 1}
			all := counts(want)
			test.app.received = make(map[string]int64)
			left, err := (&parts{post: test.app.post}).send(t.Context(), all)
			if err != test.err || test.app.posts != test.posts {
				t.Errorf("%d POSTs, error %v; want %d, %v", test.app.posts, err, test.posts, test.err)
			}
			var keys []string
			for _, count := range left {
				keys = append(keys, count.Key)
				delete(want, count.Key)
			}
			if !slices.Equal(keys, test.left) {
				t.Errorf("%q are left, want %q", keys, test.left)
			}
			if !maps.Equal(test.app.received, want) {
				t.Errorf("received %v, want %v", test.app.received, want)
			}
		})
	}
}

// An application that cuts every connection does not get a POST for each key.
func TestEveryConnectionIsCut(t *testing.T) {
	all := make(map[string]int64)
	app := &limited{limit: 3, refuses: make(map[string]error)}
	for i := range 100 {
		key := fmt.Sprintf("k%02d", i)
		all[key], app.refuses[key] = 1, ErrCut
	}
	left, err := (&parts{post: app.post}).send(t.Context(), counts(all))
	if app.posts > 30 {
		t.Errorf("%d POSTs, want 30 at the most", app.posts)
	}
	if len(left) != 100 || maybeTooLarge(err) || err.Error() != ErrCut.Error() {
		t.Errorf("%d keys are left, error %v; want 100 and that the connection was cut", len(left), err)
	}
}
