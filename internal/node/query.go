package node

import (
	"strings"
	"unicode/utf8"
)

// maxPieces is how many pieces of a query querystring.parse looks at.
const maxPieces = 1000

// QueryValue returns params.query[name] of the original as a string: the value of
// the parameter with that name, the values joined with commas if there are
// several, or "" if there is none.
//
// The query is split at each "&", and a piece at its first "=". Only the first
// 1,000 pieces are looked at, empty ones included. A value in which nothing has to
// be decoded is returned as a part of query, not as a copy.
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

// unescape decodes a name or a value as querystring.unescape does: "+" is a space,
// a "%" that two hexadecimal digits do not follow is left as it is, and the
// resulting bytes are read as UTF-8.
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

// fromHex returns the value of the hexadecimal digit c.
func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// replaceInvalid replaces each maximal invalid subpart of b with one U+FFFD, as the
// WHATWG's UTF-8 decoder in Node does. Such a subpart is the longest run of bytes
// that is the beginning of a character, or a single byte that begins none. Go's
// range loop replaces each byte, and strings.ToValidUTF8 each run of invalid bytes.
func replaceInvalid(b []byte) []byte {
	out := make([]byte, 0, len(b)+8)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			// FullRune is false while the bytes are the beginning of a character.
			for size < len(b) && !utf8.FullRune(b[:size+1]) {
				size++
			}
		}
		out = utf8.AppendRune(out, r)
		b = b[size:]
	}
	return out
}
