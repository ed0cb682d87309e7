//go:build unix

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

// outcome is what a program makes of one target.
type outcome struct {
	answer
	counts string // the counts of the next flush, as Go prints a map
}

func (o outcome) String() string { return o.answer.String() + ", counted as " + o.counts }

// outcome requests a target and forces a flush.
func (s *side) outcome(t *testing.T, target string) outcome {
	t.Helper()
	a := s.get(t, target)
	counts := make(map[string]string)
	for key, n := range s.counts(t) {
		counts[key] = fmt.Sprint(n)
	}
	return outcome{a, fmt.Sprintf("%q", counts)}
}

// none is the counts of an outcome without a hit.
const none = "map[]"

// explain returns the name of the listed difference between two outcomes of a
// target, or "" if there is none.
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
	case absolute && !strings.HasPrefix(strings.ToLower(target), "http") &&
		theirs.status == "200" && ours.status == "404" && ours.counts == none:
		return "other schemes"
	case len(target) > 16300 && len(target) < 20480 && theirs.status == "431" && ours.status == "200":
		return "header size"
	case theirs.answer == ours.answer && theirs.counts == none && ours.counts == `map["__proto__":"1"]`:
		return "JavaScript's own keys"
	case theirs.answer == ours.answer && strings.HasSuffix(theirs.counts, ` { [native code] }1"]`):
		// The counts are like map["toString":"function toString() { [native code] }1"].
		name, _, _ := strings.Cut(strings.TrimPrefix(theirs.counts, `map["`), `"`)
		if inherited[name] && ours.counts == fmt.Sprintf(`map[%q:"1"]`, name) {
			return "JavaScript's own keys"
		}
	}
	return ""
}

// inherited holds the names of the functions that every JavaScript object has.
var inherited = map[string]bool{
	"constructor": true, "hasOwnProperty": true, "isPrototypeOf": true, "propertyIsEnumerable": true,
	"toLocaleString": true, "toString": true, "valueOf": true,
}

// compareOne compares what both programs make of a target. It returns the name of
// the difference, or "", and fails the test if the difference is not listed.
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

// Both programs answer and count the curated targets alike, except for the
// differences that are named beside them.
func TestCuratedTargets(t *testing.T) {
	theirs, ours := pair(t, nil)
	for _, group := range curated {
		for _, target := range group.targets {
			compared.targets.Add(1)
			difference := compareOne(t, theirs, ours, target)
			if difference != group.difference {
				t.Errorf("%.200q: the difference is %q, want %q (%s)", target, difference, group.difference, group.rule)
			} else if difference != "" {
				differ(t, difference)
			}
		}
	}
}

// Both programs answer and count random targets alike, except for the listed
// differences. A flush follows each hundred targets. If the counts differ, each of
// the hundred is compared alone.
func TestRandomTargets(t *testing.T) {
	seed, count := uint64(time.Now().UnixNano()), 5000
	if text := os.Getenv("SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SEED is not a number: %v", err)
		}
		seed = n
	}
	t.Logf("SEED=%d repeats these %d targets", seed, count)
	random := rand.New(rand.NewPCG(seed, 0))
	theirs, ours := pair(t, nil)
	differences := make(map[string]int)
	for range count / 100 {
		targets := make([]string, 100)
		suspects := make(map[string]bool)
		for i := range targets {
			compared.targets.Add(1)
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
