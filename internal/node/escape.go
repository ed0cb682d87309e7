package node

import (
	"fmt"
	"strings"
)

// formEscapes and jsonEscapes hold, for each byte of a string in UTF-8, what
// becomes of it in the form body: alone, or inside a JSON string inside the
// form. Both of the escapes work byte by byte, so one look-up does both.
var formEscapes, jsonEscapes [256]string

func init() {
	for c := range 256 {
		formEscapes[c] = formEscape(byte(c))
		for _, j := range jsonEscape(byte(c)) {
			jsonEscapes[c] += formEscape(j)
		}
	}
}

// AppendForm appends s as querystring.stringify writes a value. In contrast to
// net/url, a space is %20 and ! ~ * ' ( ) stand as they are.
func AppendForm(dst []byte, s string) []byte {
	return appendEscaped(dst, s, &formEscapes)
}

// AppendJSONForm appends s as JSON.stringify and then querystring.stringify
// write it: a JSON string, quotes included, escaped for a form. In contrast to
// encoding/json, < > & U+2028 and U+2029 are not escaped by JSON.
func AppendJSONForm(dst []byte, s string) []byte {
	dst = append(dst, "%22"...)
	dst = appendEscaped(dst, s, &jsonEscapes)
	return append(dst, "%22"...)
}

// appendEscaped copies what stands for itself in runs.
func appendEscaped(dst []byte, s string, escapes *[256]string) []byte {
	start := 0
	for i := range len(s) {
		if escape := escapes[s[i]]; len(escape) > 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, escape...)
			start = i + 1
		}
	}
	return append(dst, s[start:]...)
}

// EscapeURL escapes a path or a query as url.parse does: a dozen characters, and
// nothing else, so that what is escaped already stays so, and non-ASCII too.
func EscapeURL(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(" \"'<>\\^`{|}", s[i]) >= 0 {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func formEscape(c byte) string {
	switch {
	case 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return string(rune(c))
	}
	switch c {
	case '-', '_', '.', '!', '~', '*', '\'', '(', ')':
		return string(rune(c))
	}
	return fmt.Sprintf("%%%02X", c)
}

// jsonEscape returns what a JSON string has for a byte, as bytes: those of
// non-ASCII characters stay as they are.
func jsonEscape(c byte) []byte {
	switch c {
	case '\b':
		return []byte(`\b`)
	case '\t':
		return []byte(`\t`)
	case '\n':
		return []byte(`\n`)
	case '\f':
		return []byte(`\f`)
	case '\r':
		return []byte(`\r`)
	case '"', '\\':
		return []byte{'\\', c}
	}
	if c < ' ' {
		return fmt.Appendf(nil, `\u%04x`, c)
	}
	return []byte{c}
}
