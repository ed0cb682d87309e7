package node

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Number converts a string as JavaScript's Number does, so that a setting can
// be written "9187", " 9187 ", "0x23e3" or "9.187e3". It reports false for
// what is not a finite number, and for the empty string, which Number takes
// for 0.
func Number(s string) (float64, bool) {
	s = strings.TrimSpace(s)
	if len(s) > 2 && s[0] == '0' && strings.ContainsRune("xXoObB", rune(s[1])) {
		n, err := strconv.ParseUint(s, 0, 64)
		return float64(n), err == nil && !strings.Contains(s, "_")
	}
	// ParseFloat also knows inf, nan and hexadecimal fractions.
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(s, 64)
	return n, err == nil
}

// NumberString writes a finite number as JavaScript does: encoding/json
// follows the same standard.
func NumberString(n float64) string {
	b, _ := json.Marshal(n)
	return string(b)
}
