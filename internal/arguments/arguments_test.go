package arguments

import "testing"

func TestQuote(t *testing.T) {
	for path, want := range map[string]string{
		"/etc/pixel-ping/key.pem": "/etc/pixel-ping/key.pem",
		"my key.pem":              "'my key.pem'",
		"it's.pem":                `'it'\''s.pem'`,
		"$HOME/a":                 "'$HOME/a'",
	} {
		if got := Quote(path); got != want {
			t.Errorf("%s is quoted as %s, want %s", path, got, want)
		}
	}
}
