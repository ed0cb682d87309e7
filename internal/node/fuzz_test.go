package node

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"pixel-ping/internal/rig"
)

// naiveQueryValue is QueryValue in a simple and slow way: it applies one rule after
// the other, each to the whole result of the last one.
func naiveQueryValue(query, name string) string {
	pieces := strings.Split(query, "&")
	if len(pieces) > 1000 {
		pieces = pieces[:1000]
	}
	var values []string
	for _, piece := range pieces {
		if piece == "" {
			continue
		}
		n, value := piece, ""
		if i := strings.Index(piece, "="); i >= 0 {
			n, value = piece[:i], piece[i+1:]
		}
		if naiveDecode(n) == name {
			values = append(values, naiveDecode(value))
		}
	}
	return strings.Join(values, ",")
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

// naiveDecode applies the rules in their order. It replaces all escapes in one
// pass, so that nothing is decoded twice.
func naiveDecode(s string) string {
	s = strings.ReplaceAll(s, "+", " ")
	return whatwg([]byte(escape.ReplaceAllStringFunc(s, func(e string) string {
		var c byte
		fmt.Sscanf(e, "%%%02x", &c)
		return string([]byte{c})
	})))
}

// whatwg is the UTF-8 decoder of the WHATWG's Encoding Standard, step by step.
func whatwg(bytes []byte) string {
	var out strings.Builder
	var point rune
	needed, seen, lower, upper := 0, 0, byte(0x80), byte(0xBF)
	for i := 0; i < len(bytes); i++ {
		b := bytes[i]
		if needed == 0 {
			switch {
			case b <= 0x7F:
				out.WriteByte(b)
			case b >= 0xC2 && b <= 0xDF:
				needed, point = 1, rune(b&0x1F)
			case b >= 0xE0 && b <= 0xEF:
				if b == 0xE0 {
					lower = 0xA0
				}
				if b == 0xED {
					upper = 0x9F
				}
				needed, point = 2, rune(b&0xF)
			case b >= 0xF0 && b <= 0xF4:
				if b == 0xF0 {
					lower = 0x90
				}
				if b == 0xF4 {
					upper = 0x8F
				}
				needed, point = 3, rune(b&0x7)
			default:
				out.WriteRune(utf8.RuneError)
			}
			continue
		}
		if b < lower || b > upper {
			needed, seen, lower, upper = 0, 0, 0x80, 0xBF
			i--
			out.WriteRune(utf8.RuneError)
			continue
		}
		lower, upper = 0x80, 0xBF
		point = point<<6 | rune(b&0x3F)
		if seen++; seen == needed {
			out.WriteRune(point)
			needed, seen = 0, 0
		}
	}
	if needed > 0 {
		out.WriteRune(utf8.RuneError)
	}
	return out.String()
}

func FuzzQueryValue(f *testing.F) {
	for _, vector := range rig.RecordedTargets(f) {
		_, query := SplitTarget(vector.Target)
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		// ServeHTTP refuses any other request before it reads the query.
		if !ValidRequest("GET", "/?"+query) {
			t.Skip()
		}
		got, want := QueryValue(query, "key"), naiveQueryValue(query, "key")
		if got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
		if !utf8.ValidString(got) {
			t.Errorf("%q: %q is not UTF-8", query, got)
		}
	})
}

var unreserved = regexp.MustCompile(`^(?:[A-Za-z0-9_.!~*'()-]|%[0-9A-F]{2})*$`)

func FuzzEscapes(f *testing.F) {
	for _, vector := range rig.RecordedTargets(f) {
		f.Add(vector.Target)
		f.Add(QueryValue(vector.Target, "key"))
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "\uFFFD")
		form, quoted := string(AppendForm(nil, s)), string(AppendJSONForm(nil, s))
		if !unreserved.MatchString(form) || !unreserved.MatchString(quoted) {
			t.Errorf("%q: something is not escaped in %s or %s", s, form, quoted)
		}
		if got, err := url.QueryUnescape(form); got != s || err != nil {
			t.Errorf("%q: the form is of %q, %v", s, got, err)
		}
		text, err := url.QueryUnescape(quoted)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		var got string
		if err := json.Unmarshal([]byte(text), &got); got != s || err != nil {
			t.Errorf("%q: the JSON is of %q, %v", s, got, err)
		}
	})
}
