package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"pixel-ping/internal/node"
)

// object decodes a JSON object. The error of a text that is not JSON says where.
func object(text []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty")
	}
	var value any
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, located(text, err)
	}
	// As json.Number, since a number may be written that no float64 can hold.
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	values, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want a JSON object (got %s)", kind(value))
	}
	return values, nil
}

// located adds the line and column, in characters from 1, to a syntax error.
func located(text []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	before := text[:max(syntax.Offset-1, 0)]
	if strings.HasPrefix(syntax.Error(), "unexpected end") {
		before = text
	}
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Errorf("line %d, column %d: %w", line, column, err)
}

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

func (s *settings) fail(name, want string, got any) {
	if s.err != nil {
		return
	}
	if got == nil {
		s.err = fmt.Errorf("%s: missing; want %s", name, want)
		return
	}
	text, _ := json.Marshal(got)
	if len(text) > 100 {
		text = append(text[:100], "..."...)
	}
	s.err = fmt.Errorf("%s: want %s (got %s)", name, want, text)
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
		s.fail(name, "the name of a file", kind(value)+" with its contents")
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

// secret reads a string, or a number, which is sent as its digits. The value is
// in no error.
func (s *settings) secret(name string) string {
	switch value := s.take(name).(type) {
	case string:
		return value
	case json.Number:
		if n, ok := number(value); !ok {
			s.fail(name, "a string or a number", "a number that is too large")
		} else if n != 0 {
			return node.NumberString(n)
		}
	case nil:
	default:
		if value != false {
			s.fail(name, "a string or a number", kind(value))
		}
	}
	return ""
}

// password is what Redacted URLs hide, found in the text as it was written.
var password = regexp.MustCompile(`^([^/?#]*//[^:/?#]*):[^/?#]*@`)

// endpoint reads a URL, and also returns it as it was written, but for a
// password. The original posts to odd places with one that has another scheme
// or no host.
func (s *settings) endpoint(name string) (*url.URL, string) {
	text := strings.TrimSpace(s.text(name))
	if text == "" {
		return nil, ""
	}
	u, err := url.Parse(text)
	if err == nil && (u.Scheme == "http" || u.Scheme == "https") && validHost(u) {
		return u, password.ReplaceAllString(text, "$1:xxxxx@")
	}
	if strings.Contains(text, "@") {
		text = "one that may hold a password"
	}
	s.fail(name, "a URL with http:// or https:// and a host", text)
	return nil, ""
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

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case []any:
		return "an array"
	}
	return "an object"
}
