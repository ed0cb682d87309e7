package conformance

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// outcome is what becomes of one target.
type outcome struct {
	answer
	counts string // what the flush after it has, as Go writes a map
}

func (o outcome) String() string { return o.answer.String() + ", counted as " + o.counts }

func (s *side) outcome(t *testing.T, target string) outcome {
	t.Helper()
	a := s.get(t, target)
	counts := make(map[string]string)
	for key, n := range s.counts(t) {
		counts[key] = fmt.Sprint(n)
	}
	return outcome{a, fmt.Sprintf("%q", counts)}
}

const none = "map[]"

// explain returns the name of the difference that two outcomes of a target are
// an instance of, or "".
func explain(target string, theirs, ours outcome) string {
	_, err := url.ParseRequestURI(target)
	uncounted := theirs.counts == none && ours.counts == none
	rejected := ours.status == "400" || ours.status == "404"
	absolute := strings.Contains(strings.SplitN(target, "?", 2)[0], "://")
	switch {
	case theirs.status == "" && theirs.counts == none && (absolute || uncounted && rejected):
		return "targets that Node trips over"
	case uncounted && (theirs.status == "404" || theirs.status == "200") && ours.status == "400" && err != nil:
		return "targets that net/http refuses"
	case strings.HasPrefix(target, "//") && theirs.status == "200" && ours.status == "404" && ours.counts == none:
		return "user and host in the path"
	case absolute && !strings.HasPrefix(strings.ToLower(target), "http") && theirs.status == "200" && ours.status == "404" && ours.counts == none:
		return "other schemes"
	case len(target) > 16300 && len(target) < 20480 && theirs.status == "431" && ours.status == "200":
		return "header size"
	case theirs.answer == ours.answer && theirs.counts == none && ours.counts == `map["__proto__":"1"]`:
		return "JavaScript's own keys"
	case theirs.answer == ours.answer && strings.HasSuffix(theirs.counts, ` { [native code] }1"]`):
		// Such as map["toString":"function toString() { [native code] }1"].
		name, _, _ := strings.Cut(strings.TrimPrefix(theirs.counts, `map["`), `"`)
		if inherited[name] && ours.counts == fmt.Sprintf(`map[%q:"1"]`, name) {
			return "JavaScript's own keys"
		}
	}
	return ""
}

// inherited are the names that every object of JavaScript has, and are functions.
var inherited = map[string]bool{
	"constructor": true, "hasOwnProperty": true, "isPrototypeOf": true, "propertyIsEnumerable": true,
	"toLocaleString": true, "toString": true, "valueOf": true,
}

// compareOne compares what becomes of a target, with a flush for it alone.
func compareOne(t *testing.T, theirs, ours *side, target string) string {
	t.Helper()
	a, b := theirs.outcome(t, target), ours.outcome(t, target)
	if a == b {
		return ""
	}
	difference := explain(target, a, b)
	if difference == "" {
		t.Errorf("%.200q\n\toriginal: %.300v\n\tours:     %.300v", target, a, b)
	}
	return difference
}

func TestCuratedTargets(t *testing.T) {
	theirs, ours := pair(t, nil)
	compared := 0
	for _, group := range curated {
		for _, target := range group.targets {
			compared++
			difference := compareOne(t, theirs, ours, target)
			if difference != group.difference {
				t.Errorf("%.200q: the difference is %q, want %q (%s)", target, difference, group.difference, group.rule)
			} else if difference != "" {
				differ(t, difference)
			}
		}
	}
	t.Logf("%d targets compared", compared)
}

// TestRandomTargets compares thousands of targets, a hundred to a flush. Only
// where a flush shows another sum are its targets compared one by one.
func TestRandomTargets(t *testing.T) {
	seed, count := uint64(time.Now().UnixNano()), 5000
	if text := os.Getenv("SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED is not a number: %v", err)
		}
		seed = n
	}
	t.Logf("SEED=%d makes the same %d targets again", seed, count)
	random := rand.New(rand.NewPCG(seed, 0))
	theirs, ours := pair(t, nil)
	differences := make(map[string]int)
	for range count / 100 {
		targets := make([]string, 100)
		suspects := make(map[string]bool)
		for i := range targets {
			targets[i] = randomTarget(random)
			if theirs.get(t, targets[i]) != ours.get(t, targets[i]) {
				suspects[targets[i]] = true
			}
		}
		a, b := theirs.counts(t), ours.counts(t)
		if !maps.Equal(a, b) {
			for _, target := range targets {
				suspects[target] = true
			}
		}
		for target := range suspects {
			if difference := compareOne(t, theirs, ours, target); difference != "" {
				differences[difference]++
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("accepted differences: %v", differences)
}
