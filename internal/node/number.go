package node

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Number converts a string to a number as JavaScript's Number does: a setting can
// be "9187", " 9187 ", "0x23e3" or "9.187e3". It reports false if s is not a finite
// number or is empty. (JavaScript's Number converts the empty string to 0.)
func Number(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 2 && s[0] == '0' && strings.ContainsRune("xXoObB", rune(s[1])) {
		n, err := strconv.ParseUint(s, 0, 64)
		return float64(n), err == nil && !strings.Contains(s, "_")
	}
	// ParseFloat also accepts inf, nan and hexadecimal fractions.
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}

// NumberString returns a finite number as JavaScript writes it. encoding/json
// follows the same rules.
func NumberString(n float64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
