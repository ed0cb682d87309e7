package config

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"pixel-ping/internal/node"
)

// settings are read one by one, each as the type that it should have. A setting
// that was read is gone from values, so that the unknown ones are left in the
// end, and the first that is wrong stays in err.
type settings struct {
	values map[string]any
	err    error
}

// take returns a value, or nil for none: JavaScript takes null for as good as
// nothing.
func (s *settings) take(name string) any {
	value := s.values[name]
	delete(s.values, name)
	return value
}

// fail keeps the first error. Of a value that could hold a secret, as arrays and
// objects may, it is only told what kind it is of.
func (s *settings) fail(name, want string, got any) {
	if s.err != nil {
		return
	}
	switch got := got.(type) {
	case nil:
		s.err = fmt.Errorf("%s: missing; want %s", name, want)
	case kind:
		s.err = fmt.Errorf("%s: want %s (got %s)", name, want, got)
	case []any, map[string]any:
		s.err = fmt.Errorf("%s: want %s (got %s)", name, want, kindOf(got))
	default:
		text, _ := json.Marshal(got)
		s.err = fmt.Errorf("%s: want %s (got %s)", name, want, text)
	}
}

// text reads an optional string. The original tests these for being true, so
// false is as good as nothing too.
func (s *settings) text(name string) string {
	switch value := s.take(name).(type) {
	case nil:
	case string:
		return value
	default:
		if value != false {
			s.fail(name, "a string", value)
		}
	}
	return ""
}

// file reads the name of a file, and does not show what was pasted in place of
// it.
func (s *settings) file(name string) string {
	value := s.text(name)
	if strings.Contains(value, "-----BEGIN") {
		s.fail(name, "the name of a file", kind("what should be in it"))
	}
	return value
}

func (s *settings) flag(name string) bool {
	switch value := s.take(name).(type) {
	case nil:
	case bool:
		return value
	default:
		s.fail(name, "true or false", value)
	}
	return false
}

func (s *settings) port(name string) int {
	value := s.take(name)
	n, ok := number(value)
	if !ok || n != math.Trunc(n) || n < 0 || n > 65535 {
		s.fail(name, "a number from 0 to 65535", value)
		return 0
	}
	return int(n)
}

// interval reads seconds. Node's timers go no faster than a millisecond, and
// those above 24.8 days as fast as that, which these do not.
func (s *settings) interval(name string) time.Duration {
	value := s.take(name)
	n, ok := number(value)
	if !ok || n <= 0 {
		s.fail(name, "a number of seconds above 0", value)
		return 0
	}
	if n >= math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return max(time.Duration(n*float64(time.Second)), time.Millisecond)
}

// megabytes reads a number of 1,048,576 bytes, and returns bytes.
func (s *settings) megabytes(name string, missing int64) int64 {
	value := s.take(name)
	if value == nil {
		return missing << 20
	}
	n, ok := number(value)
	if !ok || n <= 0 {
		s.fail(name, "a number of megabytes above 0", value)
		return 0
	}
	return int64(min(n, 1<<30) * (1 << 20))
}

// secret reads a string, or a number, which is sent as its digits. The value is
// in no error.
func (s *settings) secret(name string) string {
	switch value := s.take(name).(type) {
	case string:
		return value
	case json.Number:
		if n, ok := number(value); !ok {
			s.fail(name, "a string or a number", kind("a number that is too large"))
		} else if n != 0 {
			return node.NumberString(n)
		}
	case nil:
	default:
		if value != false {
			s.fail(name, "a string or a number", kindOf(value))
		}
	}
	return ""
}

// password is what Redacted URLs hide, found in the text as it was written.
var password = regexp.MustCompile(`^([^/?#]*//[^:/?#]*):[^/?#]*@`)

// endpoint reads a URL. It returns the part of it that says where, scheme, host
// and user; the target, which is path and query as Node escapes them; and the
// whole as it was written, but for a password. The original posts to odd places
// with one that has another scheme or no host.
func (s *settings) endpoint(name string) (where *url.URL, target, text string) {
	text = s.text(name)
	if text == "" {
		return nil, "", ""
	}
	whole, _, _ := strings.Cut(strings.TrimSpace(text), "#")
	rest, query, _ := strings.Cut(whole, "?")
	rest = strings.ReplaceAll(rest, "\\", "/")
	scheme, rest, _ := strings.Cut(rest, "://")
	authority, path, _ := strings.Cut(rest, "/")
	where, err := url.Parse(scheme + "://" + authority)
	if err == nil && (where.Scheme == "http" || where.Scheme == "https") && validHost(where) && !strings.ContainsFunc(whole, unicode.IsControl) {
		target = node.EscapeURL("/" + path)
		if query != "" {
			target += "?" + node.EscapeURL(query)
		}
		return where, target, password.ReplaceAllString(text, "$1:xxxxx@")
	}
	if strings.Contains(text, "@") {
		s.fail(name, "a URL with http:// or https:// and a host", kind("one that may hold a password"))
	} else {
		s.fail(name, "a URL with http:// or https:// and a host", text)
	}
	return nil, "", ""
}

// validHost reports whether a URL's host and port can be connected to. Names
// beyond ASCII would need a table to be looked up; they are to be written in
// their xn-- form.
func validHost(u *url.URL) bool {
	for _, r := range u.Host {
		if r <= ' ' || r >= utf8.RuneSelf {
			return false
		}
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Hostname() != "" && (u.Port() == "" || err == nil && port > 0)
}

// number returns the value of a number or of a string that JavaScript reads as
// one, if it is finite.
func number(value any) (float64, bool) {
	switch value := value.(type) {
	case json.Number:
		n, err := value.Float64()
		return n, err == nil
	case string:
		return node.Number(value)
	}
	return 0, false
}
