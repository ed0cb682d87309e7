package flush

import (
	"strings"
	"testing"
	"unicode"

	"pixel-ping/internal/hits"
)

// The log has one line for each key, whatever bytes the key has.
func FuzzLog(f *testing.F) {
	for _, key := range []string{"a", "a\n1:\tb", "\r\x1b[2J", "\u0085\u2028\u2029", "\xff\n", "é\\n"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		text := string(appendLine(nil, hits.Count{Key: key, Hits: 7}))
		line, ended := strings.CutSuffix(text, "\n")
		line, begun := strings.CutPrefix(line, "7:\t")
		if !begun || !ended || strings.ContainsFunc(line, func(r rune) bool {
			return unicode.IsControl(r) || r == '\u2028' || r == '\u2029'
		}) {
			t.Errorf("%q is logged as %q", key, text)
		}
	})
}
