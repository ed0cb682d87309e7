package node

import (
	"strings"
	"unicode/utf8"
)

// maxPieces is the number of pieces of a query at which querystring.parse
// stops looking.
const maxPieces = 1000

// QueryValue returns what the original finds as params.query[name] once it has
// made a string of it: the value of the one parameter of that name, or the
// values of several joined with a comma, or "" if there is none.
//
// The query is split at "&" alone, and a piece at its first "="; empty pieces
// are skipped, but count among the first 1,000, and the rest is not looked at.
// A value without anything to decode is returned as part of query, without
// a copy.
func QueryValue(query, name string) string {
	var value string
	found := false
	for range maxPieces {
		piece, rest, more := strings.Cut(query, "&")
		n, v, _ := strings.Cut(piece, "=")
		if piece != "" && unescape(n) == name {
			if found {
				value += "," + unescape(v)
			} else {
				value = unescape(v)
			}
			found = true
		}
		if !more {
			break
		}
		query = rest
	}
	return value
}

// unescape decodes a name or a value as querystring.unescape does: "+" is a
// space, a "%" without two hexadecimal digits after it stands for itself, and
// the bytes that come out are read as UTF-8.
func unescape(s string) string {
	if !strings.ContainsAny(s, "+%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			b = append(b, ' ')
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			b = append(b, fromHex(s[i+1])<<4|fromHex(s[i+2]))
			i += 2
		default:
			b = append(b, c)
		}
	}
	if !utf8.Valid(b) {
		b = replaceInvalid(b)
	}
	return string(b)
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

// fromHex returns the value of a digit for which isHex holds.
func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// replaceInvalid puts one U+FFFD in the place of each maximal invalid subpart,
// as the WHATWG's UTF-8 decoder does in Node: the longest run of bytes that
// could still have begun a character is replaced as one. Go's own ways replace
// each byte, or each run of bad bytes.
func replaceInvalid(b []byte) []byte {
	out := make([]byte, 0, len(b)+8)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			// FullRune is false for as long as more bytes could save it.
			for size < len(b) && !utf8.FullRune(b[:size+1]) {
				size++
			}
		}
		out = utf8.AppendRune(out, r)
		b = b[size:]
	}
	return out
}
