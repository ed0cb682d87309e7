package config

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// asciiHost returns the name of a host in the form that name servers have: each label
// that is not ASCII becomes xn-- and its letters in Punycode (RFC 3492). isASCII reports
// whether name is ASCII as it is. ascii is empty if name has characters for which the
// standard library has no table, such as accents that stand apart from their letter.
func asciiHost(name string) (ascii string, isASCII bool) {
	if !strings.ContainsFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) {
		return name, true
	}
	labels := strings.Split(strings.ToLower(name), ".")
	for i, label := range labels {
		for _, r := range label {
			if r == utf8.RuneError || r >= utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
				return "", false
			}
		}
		labels[i] = punycode(label)
	}
	return strings.Join(labels, "."), false
}

// punycode encodes a label as section 6.3 of RFC 3492 says, with its names.
func punycode(label string) string {
	const base, tMin, tMax, skew, damp = 36, 1, 26, 38, 700
	var ascii []byte
	runes := []rune(label)
	for _, r := range runes {
		if r < utf8.RuneSelf {
			ascii = append(ascii, byte(r))
		}
	}
	if len(ascii) == len(runes) {
		return label
	}
	basic := len(ascii)
	if basic > 0 {
		ascii = append(ascii, '-')
	}
	n, delta, bias := rune(utf8.RuneSelf), 0, 72
	for handled := basic; handled < len(runes); n++ {
		next := rune(unicode.MaxRune)
		for _, r := range runes {
			if r >= n {
				next = min(next, r)
			}
		}
		delta += int(next-n) * (handled + 1)
		n = next
		for _, r := range runes {
			if r < n {
				delta++
			}
			if r != n {
				continue
			}
			q := delta
			for k := base; ; k += base {
				t := min(max(k-bias, tMin), tMax)
				if q < t {
					break
				}
				ascii = append(ascii, digit(t+(q-t)%(base-t)))
				q = (q - t) / (base - t)
			}
			ascii = append(ascii, digit(q))
			// The bias of section 6.1.
			if handled == basic {
				delta /= damp
			} else {
				delta /= 2
			}
			delta += delta / (handled + 1)
			for bias = 0; delta > (base-tMin)*tMax/2; bias += base {
				delta /= base - tMin
			}
			bias += (base - tMin + 1) * delta / (delta + skew)
			delta = 0
			handled++
		}
		delta++
	}
	return "xn--" + string(ascii)
}

// digit returns a digit of Punycode: a to z, then 0 to 9.
func digit(d int) byte { return "abcdefghijklmnopqrstuvwxyz0123456789"[d] }
