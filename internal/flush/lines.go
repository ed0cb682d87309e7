package flush

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"pixel-ping/internal/hits"
)

// lines are the lines of the log for a list.
type lines []hits.Count

// append appends line i to dst.
func (l lines) append(dst []byte, i int) []byte {
	dst = strconv.AppendInt(dst, l[i].Hits, 10)
	dst = append(dst, ":\t"...)
	dst = append(dst, escape(l[i].Key)...)
	return append(dst, '\n')
}

// String returns all lines.
func (l lines) String() string {
	var text []byte
	for i := range l {
		text = l.append(text, i)
	}
	return string(text)
}

// escape returns key without the characters that would break its line in the log: control characters, and those
// that some programs take for the end of a line. The original prints keys as they are: with %0A in a key, a client
// can forge a line, and with other control characters it can control the terminal.
func escape(key string) string {
	breaksLine := func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }
	if !strings.ContainsFunc(key, breaksLine) {
		return key
	}
	var b strings.Builder
	for _, r := range key {
		if breaksLine(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
