package post

import (
	"bufio"
	"encoding/json"
	"maps"
	"net/url"
	"strings"
	"testing"
)

// The standard library decodes the body to the counts that were encoded.
func FuzzBody(f *testing.F) {
	f.Add("a", "b", int64(1), int64(2), "")
	f.Add("a b", "\x00\"\\", int64(1)<<53, int64(1), "s&c=t")
	f.Add(`","a":1`, "\u2028😀", int64(9), int64(10), "é")
	f.Fuzz(func(t *testing.T, key, other string, n, m int64, secret string) {
		key, other = strings.ToValidUTF8(key, "\uFFFD"), strings.ToValidUTF8(other, "\uFFFD")
		want := map[string]int64{key: n, other: m}
		c := counts(want)
		var body strings.Builder
		if err := (&Client{secret: secret}).writeBody(bufio.NewWriter(&body), c); err != nil {
			t.Fatal(err)
		}
		form, err := url.ParseQuery(body.String())
		if err != nil {
			t.Fatalf("%s: %v", body.String(), err)
		}
		var got map[string]int64
		if err := json.Unmarshal([]byte(form.Get("json")), &got); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", body.String(), got, err, want)
		}
		if form.Get("secret") != secret || len(form) > 2 {
			t.Errorf("%s: the secret is not %q", body.String(), secret)
		}
	})
}
