package node

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

func TestAppendForm(t *testing.T) {
	got := string(AppendForm([]byte("x"), "aZ09-_.!~*'() +&=%/é\x00"))
	want := "xaZ09-_.!~*'()%20%2B%26%3D%25%2F%C3%A9%00"
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestAppendJSONForm(t *testing.T) {
	for _, test := range []struct{ s, want string }{
		{"a b", "%22a%20b%22"},
		{"\b\t\n\f\r\"\\", "%22%5Cb%5Ct%5Cn%5Cf%5Cr%5C%22%5C%5C%22"},
		{"\x00\x1f", "%22%5Cu0000%5Cu001f%22"},
		{"/<>&\x7f\u2028", "%22%2F%3C%3E%26%7F%E2%80%A8%22"},
	} {
		if got := string(AppendJSONForm(nil, test.s)); got != test.want {
			t.Errorf("%q: %s, want %s", test.s, got, test.want)
		}
	}
}

// The standard library decodes the result to the same string, and the result has
// only unreserved characters and escapes.
func TestEscapesOfEveryByte(t *testing.T) {
	var ascii strings.Builder
	for c := range 128 {
		ascii.WriteByte(byte(c))
	}
	all := ascii.String() + "\u0080é\u2028\u2029\uFEFF\uFFFD😀"
	body := AppendJSONForm(AppendForm(nil, all), all)
	if i := strings.IndexFunc(string(body), func(r rune) bool {
		return r >= 128 || !strings.ContainsRune("%-_.!~*'()", r) && !isAlphanumeric(r)
	}); i >= 0 {
		t.Errorf("%q stands as it is", body[i])
	}
	text, err := url.QueryUnescape(string(body))
	if err != nil {
		t.Fatal(err)
	}
	quoted, ok := strings.CutPrefix(text, all)
	if !ok {
		t.Fatalf("%q does not begin with %q", text, all)
	}
	var got string
	if err := json.Unmarshal([]byte(quoted), &got); err != nil || got != all {
		t.Errorf("%q, %v; want %q", got, err, all)
	}
}

func isAlphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r|0x20 && r|0x20 <= 'z'
}
