//go:build unix

package conformance

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// parts splits a body into the entries of its JSON object, still escaped and
// sorted, and the text around them. An entry ends at a comma outside of a JSON
// string.
func parts(body string) (entries []string, around string) {
	const open, end = "json=%7B", "%7D"
	rest, ok := strings.CutPrefix(body, open)
	if !ok {
		return nil, body
	}
	inString, escaped, start := false, false, 0
	for i := 0; i < len(rest); {
		unit := rest[i : i+1]
		if unit == "%" {
			unit = rest[i : i+3]
		}
		switch {
		case escaped:
			escaped = false
		case inString && unit == "%5C":
			escaped = true
		case unit == "%22":
			inString = !inString
		case !inString && (unit == "%2C" || unit == end):
			entries = append(entries, rest[start:i])
			start = i + len(unit)
		}
		i += len(unit)
		if !inString && unit == end {
			around = open + end + rest[i:]
			break
		}
	}
	slices.Sort(entries)
	return entries, around
}

// compareBodies compares the bytes of two bodies, but not the order of their keys.
func compareBodies(t *testing.T, what, theirs, ours string) {
	t.Helper()
	compared.flushes.Add(1)
	a, aroundA := parts(theirs)
	b, aroundB := parts(ours)
	if !slices.Equal(a, b) || aroundA != aroundB || len(theirs) != len(ours) {
		t.Errorf("%s\n\toriginal: %.2000s\n\tours:     %.2000s", what, theirs, ours)
	}
}

// everyCharacter returns keys with every ASCII character at each place, and keys
// that JSON or forms might treat specially.
func everyCharacter() (keys []string) {
	for c := range rune(128) {
		keys = append(keys, string(c), "a"+string(c), string(c)+"b", "a"+string(c)+"b"+string(c)+string(c))
	}
	return append(keys, "é", "ß漢字", "😀", "\u0080", "\u009f", "\u00a0", "\u2028", "\u2029",
		"\ufeff", "\ufffd", "\uffff", "\U0010ffff",
		`","a":1`, `":1,`, `\u0041`, `</script>`, "a,b", "{}", "[]", "null", "true", "1.5", "10", "9", "01")
}

// Both programs post the same bytes for the same counts and secret.
func TestBodies(t *testing.T) {
	keys := everyCharacter()
	var secret strings.Builder
	for c := ' '; c <= '~'; c++ {
		secret.WriteRune(c)
	}
	for name, value := range map[string]any{
		"no secret": nil, "empty secret": "", "plain secret": "swordfish", "printable secret": secret.String(),
		"other secret": "é漢😀 \u2028\ufeff\t\n", "number": 12345, "fraction": 0.5,
		"large number": 1e21, "too precise": 12345678901234567890.0, "zero": 0, "negative": -1.25e-9, "null": nil, "false": false,
	} {
		theirs, ours := pair(t, map[string]any{"secret": value})
		compareBodies(t, name+", no hits", theirs.flush(t), ours.flush(t))
		for i, key := range keys {
			target := "/pixel.gif?key=" + url.QueryEscape(key)
			for range i%3 + 1 {
				theirs.get(t, target)
				ours.get(t, target)
			}
			if name != "no secret" && i > 10 {
				break
			}
		}
		a, b := theirs.flush(t), ours.flush(t)
		compareBodies(t, name, a, b)
		if name == "no secret" {
			slices.Sort(keys)
			if got, want := len(rig.Counts[int64](t, b)), len(slices.Compact(keys)); got != want {
				t.Errorf("%d keys were sent, want %d", got, want)
			}
			if a == b {
				t.Errorf("the keys are in the same order, want the listed difference")
			}
			differ(t, "order of keys")
		}
	}
}

// head returns the request line of a request and its headers by name.
func head(t *testing.T, request string) (line string, headers map[string]string) {
	t.Helper()
	text, _, _ := strings.Cut(request, "\r\n\r\n")
	line, fields, _ := strings.Cut(text, "\r\n")
	headers = make(map[string]string)
	for field := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(field, ": ")
		headers[http.CanonicalHeaderKey(name)] = value
	}
	return line, headers
}

// Both programs post to the same target with the same headers.
func TestHeads(t *testing.T) {
	for _, test := range []struct{ path, difference string }{
		{"/save", ""},
		{"/", ""},
		{"/a%20b/c%C3%A9", ""},
		{"/a//b/../c", ""},
		{"/a;b=c", ""},
		{"/a b", ""},
		{"/a'b\"<c>", ""},
		{"/a\\b", ""},
		{"/100%/%zz", ""},
		{"/a?", ""},
		{"/é", ""},
		{"/save#fragment", ""},
		{"/save?a=b", "parts of the endpoint's URL"},
	} {
		theirs, ours := pair(t, map[string]any{"endpoint": test.path})
		compareHeads(t, theirs, ours, test.path, test.difference)
	}
}

// compareHeads forces a flush of both programs, with a hit, and compares the request
// lines and all headers. It ignores that the endpoints have different addresses, and
// that ours sends an id.
func compareHeads(t *testing.T, theirs, ours *side, what, difference string) {
	t.Helper()
	compared.flushes.Add(1)
	var all [2]string
	for i, s := range []*side{theirs, ours} {
		s.get(t, "/pixel.gif?key=a")
		s.Signal(t, syscall.SIGUSR2)
		line, headers := head(t, s.endpoint.Next(t))
		if id, ok := headers["Idempotency-Key"]; ok != (s == ours) {
			t.Errorf("%s: %s sends the id %q", what, s.name, id)
		}
		delete(headers, "Idempotency-Key")
		all[i] = strings.ReplaceAll(fmt.Sprintf("%s %v", line, headers), s.endpoint.Address, "ADDRESS")
	}
	switch same := all[0] == all[1]; {
	case difference == "" && !same:
		t.Errorf("%s\n\toriginal: %s\n\tours:     %s", what, all[0], all[1])
	case difference != "" && same:
		t.Errorf("%s: both post %s, want the listed difference %q", what, all[0], difference)
	case difference != "":
		differ(t, difference)
	}
}
