package node

import (
	"fmt"
	"strings"
)

// formEscapes holds, for each byte, how it is written in a form; jsonEscapes, how
// it is written in a JSON string in a form. Both encodings work byte by byte on
// UTF-8, so that one look-up in jsonEscapes does both.
var formEscapes, jsonEscapes [256]string

func init() {
	for c := range 256 {
		formEscapes[c] = formEscape(byte(c))
		for _, j := range jsonEscape(byte(c)) {
			jsonEscapes[c] += formEscape(j)
		}
	}
}

// AppendForm appends s as querystring.stringify writes a value. Unlike net/url, it
// writes a space as %20 and does not escape ! ~ * ' ( ).
func AppendForm(dst []byte, s string) []byte {
	return appendEscaped(dst, s, &formEscapes)
}

// AppendJSONForm appends s as JSON.stringify and then querystring.stringify write
// it: as a JSON string with its quotes, escaped for a form. Unlike encoding/json,
// it does not escape < > & U+2028 and U+2029 in the JSON.
func AppendJSONForm(dst []byte, s string) []byte {
	dst = append(dst, "%22"...)
	dst = appendEscaped(dst, s, &jsonEscapes)
	return append(dst, "%22"...)
}

// appendEscaped appends the escape of each byte of s. It copies runs of bytes that
// are not escaped as a whole.
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

// EscapeURL escapes a path or a query as url.parse does: only a dozen characters.
// It leaves % and non-ASCII characters as they are, so that escapes are not
// escaped again.
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

// formEscape returns how a byte is written in a form.
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

// jsonEscape returns how a byte is written in a JSON string. The bytes of non-ASCII
// characters are not escaped.
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
