package node

import (
	"strings"
	"testing"
)

func TestQueryValue(t *testing.T) {
	for _, test := range []struct{ query, want string }{
		{"", ""},
		{"key", ""},
		{"key=", ""},
		{"key=a", "a"},
		{"KEY=a&key[]=b&+key=c&keys=d", ""},
		{"x=1&key=a&y=2", "a"},
		{"%6Bey=a", "a"},
		{"k%65%79=a", "a"},
		{"key=a=b", "a=b"},
		{"key=a;key=b", "a;key=b"},
		{"&&key=a&&", "a"},
		{"=key&key=a", "a"},

		{"key=a&key=b", "a,b"},
		{"key=&key=", ","},
		{"key&key=a", ",a"},
		{"key=a&%6bey=b&key=c", "a,b,c"},

		{"key=a+b%20c%2Bd", "a b c+d"},
		{"key=%41%zz", "A%zz"},
		{"key=100%", "100%"},
		{"key=%4", "%4"},
		{"key=%4+1", "%4 1"},
		{"key=%u00e9", "%u00e9"},
		{"key=%%41", "%A"},
		{"key=%4%41", "%4A"},
		{"key=%e9", "\uFFFD"},
		{"key=%C3%A9", "é"},
		{"key=%c3%a9%", "é%"},

		{"key=%e4%bd", "\uFFFD"},
		{"key=%e4%bdA", "\uFFFDA"},
		{"key=%ED%A0%80", "\uFFFD\uFFFD\uFFFD"},
		{"key=%C0%AF", "\uFFFD\uFFFD"},
		{"key=%F0%9F%98", "\uFFFD"},
		{"key=%F0%9F%98%80", "😀"},
		{"key=%F0%8F%80%80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
		{"key=%F4%90%80%80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
		{"key=%F5%80", "\uFFFD\uFFFD"},
		{"key=%E0%80%80", "\uFFFD\uFFFD\uFFFD"},
		{"key=%E0%A0A", "\uFFFDA"},
		{"key=a%80b", "a\uFFFDb"},
		{"key=%EF%BB%BFa", "\uFEFFa"},
		{"key=%EF%BF%BD", "\uFFFD"},
		{"key=a%00b", "a\x00b"},

		{strings.Repeat("a&", 999) + "key=b", "b"},
		{strings.Repeat("a&", 1000) + "key=b", ""},
		{strings.Repeat("&", 999) + "key=b", "b"},
		{strings.Repeat("&", 1000) + "key=b", ""},
		{"key=a" + strings.Repeat("&", 1000) + "key=b", "a"},
	} {
		if got := QueryValue(test.query, "key"); got != test.want {
			t.Errorf("%.60s: %q, want %q", test.query, got, test.want)
		}
	}
}

func TestQueryValueOfPlainCharactersIsNotCopied(t *testing.T) {
	query := "x=1&key=https://example.com/a"
	allocs := testing.AllocsPerRun(100, func() { QueryValue(query, "key") })
	if allocs != 0 {
		t.Errorf("%v allocations, want none", allocs)
	}
}
