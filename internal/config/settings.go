package config

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"pixel-ping/internal/node"
)

// settings returns the values one by one, each checked for the type that it should
// have.
type settings struct {
	values map[string]any // those that were not taken yet; in the end, the unknown ones
	err    error          // the first error
}

// take returns a value and removes it. It returns nil for null and for a missing
// value, between which the original makes no difference.
func (s *settings) take(name string) any {
	value := s.values[name]
	delete(s.values, name)
	return value
}

// fail records an error, unless there is one already. It shows got. Of an array, an
// object or a text that may be a URL with a secret it shows only the kind.
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
	case string:
		if strings.ContainsAny(got, "@?#;") {
			s.fail(name, want, kind("one that may hold a password"))
			return
		}
		s.err = fmt.Errorf("%s: want %s (got %q)", name, want, got)
	default:
		s.err = fmt.Errorf("%s: want %s (got %v)", name, want, got)
	}
}

// text reads an optional string. The original only tests whether such a setting is
// true in JavaScript's sense, so false also means that there is none.
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

// host reads a name or an address to listen on.
func (s *settings) host(name string) string {
	value := s.text(name)
	if _, err := netip.ParseAddr(value); err == nil {
		return value
	}
	ascii, isASCII := asciiHost(value)
	switch {
	case value == "*":
		s.fail(name, "a name or an address; to listen on all interfaces, remove the setting", value)
	case strings.ContainsAny(value, `/\@?#`):
		s.fail(name, "a name or an address alone, without a scheme or a path", value)
	case !isASCII:
		s.fail(name, "a name in ASCII"+write(ascii), value)
	case strings.ContainsAny(value, "[]"):
		s.fail(name, "an IPv6 address without brackets, and the port in the setting port", value)
	case strings.Contains(value, ":"):
		s.fail(name, "a name or an address alone, and the port in the setting port", value)
	}
	return value
}

// path reads the name of a file or a directory, as want says. Where the contents of a
// file were pasted in its place, the error does not show them.
func (s *settings) path(name, want string) string {
	value := s.text(name)
	switch {
	case strings.Contains(value, "-----BEGIN"):
		s.fail(name, want, kind("the contents of one"))
	case isURL(value):
		s.fail(name, want, kind("a URL"))
	}
	return value
}

// isURL reports whether text is no path but a URL, perhaps one with a slash too few or
// without its scheme. It may hold a password, and errors about a path show the path.
func isURL(text string) bool { return urlParts.MatchString(text) }

// urlParts matches a scheme of two letters or more (C:\ is a drive of Windows), and a
// password with the colon and the @ around it.
var urlParts = regexp.MustCompile(`^\s*[A-Za-z][A-Za-z0-9+.-]+:[/\\]|://|:[^/\\]*@`)

// flag reads true or false; a missing value is false.
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

// port reads a number, or the path of a Unix socket. The original takes any string
// that is not a number for a path; here it has a slash, so that a mistake in a
// number is not taken for one.
func (s *settings) port(name string) (port int, socket string) {
	value := s.take(name)
	if value == nil {
		return NoPort, ""
	}
	if path, ok := value.(string); ok && isSocket(path) {
		return 0, s.socket(name, path)
	}
	n, ok := number(value)
	if !ok || n != math.Trunc(n) || n < 0 || n > 65535 {
		s.fail(name, wantPort, value)
		return 0, ""
	}
	return int(n), ""
}

// wantPort is what port should be.
const wantPort = "a number from 0 to 65535, or the path of a socket, with a slash"

// isSocket reports whether text is the path of a Unix socket.
func isSocket(text string) bool { return strings.Contains(text, "/") && !isURL(text) }

// socket returns the path of a Unix socket, for which a system has little room.
func (s *settings) socket(name, path string) string {
	const most = len(syscall.RawSockaddrUnix{}.Path) - 1
	if len(path) > most {
		s.fail(name, fmt.Sprintf("the path of a socket with at most %d bytes", most), kind(fmt.Sprintf("%d bytes", len(path))))
	}
	return path
}

// address reads the address of a listener: host and port, or the path of a Unix
// socket.
func (s *settings) address(name string) string {
	value := s.take(name)
	text, ok := value.(string)
	if value == nil || value == false || ok && text == "" {
		return ""
	}
	if isSocket(text) {
		return s.socket(name, text)
	}
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	ascii, isASCII := asciiHost(host)
	switch {
	case !ok || err != nil || strings.ContainsAny(host, `/\@?#`):
		s.fail(name, "an address such as 127.0.0.1:9188, or the path of a socket, with a slash", value)
	case host == "*":
		s.fail(name, "a name or an address before the port; to listen on all interfaces, write :"+port, value)
	case !isASCII:
		s.fail(name, "a name in ASCII"+write(ascii), value)
	}
	return text
}

// interval reads seconds. As with Node's timers, the shortest interval is a
// millisecond. Node's timers also run each millisecond if the interval is above
// 24.8 days; here a long interval is as long as it says.
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

// defaultKeepAlive is how long a connection may be idle unless the configuration says
// otherwise. A page's later events find the connection open, as they do with nginx. Node
// closes it after 6 seconds.
const defaultKeepAlive = 75 * time.Second

// keepAlive reads an optional number of seconds.
func (s *settings) keepAlive(name string) time.Duration {
	if s.values[name] == nil {
		delete(s.values, name)
		return defaultKeepAlive
	}
	return s.interval(name)
}

const (
	// minMegabytes is room for one key of the greatest length: 20 kB, which is what
	// the server accepts as a request's target and headers, and what the store adds
	// for each key.
	minMegabytes = 0.02
)

// megabytes reads an optional number of megabytes (1,048,576 bytes) and returns bytes,
// or 0 for none.
func (s *settings) megabytes(name string) int64 {
	value := s.take(name)
	if value == nil {
		return 0
	}
	n, ok := number(value)
	if !ok || n < minMegabytes {
		s.fail(name, fmt.Sprintf("a number of megabytes, %v or more", minMegabytes), value)
		return 0
	}
	return int64(min(n, 1<<30) * (1 << 20))
}

// count reads an optional whole number, and returns 0 for none.
func (s *settings) count(name string) int {
	value := s.take(name)
	if value == nil {
		return 0
	}
	n, ok := number(value)
	if !ok || n != math.Trunc(n) || n < 1 {
		s.fail(name, "a whole number, 1 or more", value)
		return 0
	}
	return int(min(n, math.MaxInt32))
}

// secret reads a string, or a number, which is sent as its digits. No error
// shows the value.
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

// endpoint reads a URL. It returns the part that says where to connect (scheme,
// host and user), the target (path and query, escaped as Node does), and the
// text for the log. The original posts to odd places if the URL has another
// scheme or no host. Like the original, endpoint takes a backslash for a slash.
func (s *settings) endpoint(name string) (where *url.URL, target, text string) {
	text = s.text(name)
	if text == "" {
		return nil, "", ""
	}
	whole, _, _ := strings.Cut(strings.TrimSpace(text), "#")
	rest, query, _ := strings.Cut(whole, "?")
	rest = strings.ReplaceAll(rest, `\`, "/")
	scheme, rest, _ := strings.Cut(rest, "://")
	authority, path, _ := strings.Cut(rest, "/")
	socket := ""
	at := strings.LastIndexByte(authority, '@') + 1 // after the user, which may be missing
	if strings.EqualFold(authority[at:], "unix:") { // as nginx has it: http://unix:/run/app.sock:/save_hits
		authority = authority[:at] + "localhost"
		socket, path, _ = strings.Cut("/"+path, ":")
		socket, path = s.socket(name, socket), strings.TrimPrefix(path, "/")
	}
	where, err := url.Parse(scheme + "://" + authority)
	if err == nil && (where.Scheme == "http" || where.Scheme == "https") && validHost(where) &&
		!strings.ContainsFunc(whole, unicode.IsControl) {
		target = node.EscapeURL("/" + path)
		if query != "" {
			target += "?" + node.EscapeURL(query)
		}
		where.Path = socket
		return where, target, redact(text)
	}
	// Where the parts of such a text begin and end is a guess, so the error shows
	// no text that may hold a password.
	got := kind(strconv.Quote(redact(text)))
	if strings.Contains(text, "@") {
		got = "one that may hold a password"
	}
	want := "a URL with http:// or https:// and a host"
	switch {
	case strings.Contains(authority, "%") && strings.Contains(authority, "]") && !strings.Contains(authority, "%25"):
		want += "; the zone of an IPv6 address begins with %25"
	case strings.Contains(strings.ToLower(scheme+authority), "unix:"):
		want += ", or a socket as in http://unix:/run/app.sock:/save_hits"
	case err == nil && where.Host != "":
		if ascii, isASCII := asciiHost(where.Hostname()); !isASCII {
			want += " in ASCII" + write(ascii)
		}
	}
	s.fail(name, want, got)
	return nil, "", ""
}

// write returns what to write in place of a name that is not ASCII, if that is known.
func write(ascii string) string {
	if ascii == "" {
		return ", in its xn-- form"
	}
	return ": write " + ascii
}

var (
	// password matches a URL from its beginning to the @ after the password. Its group
	// ends before the colon of the password. A # in a password should be escaped, but
	// people forget that, so a # does not end the password here.
	password = regexp.MustCompile(`^([^/\\?#]*[/\\]{2}[^:/\\?#]*):[^/\\?]*@`)
	// loneUser matches the same part of a URL with a user and no password. The user may
	// be a token. Its group ends before the user.
	loneUser = regexp.MustCompile(`^([^/\\?#]*[/\\]{2})[^:/\\?#]*@`)
)

// redact replaces the secrets that a URL may hold with xxxxx: the password, a user
// without a password, the values of the query, parameters without =, and the fragment.
// Everything else stays as it was written.
func redact(text string) string {
	text, query, found := strings.Cut(text, "?")
	text = loneUser.ReplaceAllString(text, "${1}xxxxx@")
	text = password.ReplaceAllString(text, "${1}:xxxxx@")
	if before, fragment, _ := strings.Cut(text, "#"); fragment != "" {
		text = before + "#xxxxx"
	}
	if !found {
		return text
	}
	parameters := strings.Split(query, "&")
	for i, parameter := range parameters {
		if name, _, found := strings.Cut(parameter, "="); found {
			parameters[i] = name + "=xxxxx"
		} else if parameter != "" {
			parameters[i] = "xxxxx"
		}
	}
	return text + "?" + strings.Join(parameters, "&")
}

// validHost reports whether the host and the port of u can be connected to. A
// name with characters beyond ASCII has to be written in its xn-- form: the
// standard library has no table to convert it.
func validHost(u *url.URL) bool {
	for _, r := range u.Host {
		if r <= ' ' || r >= utf8.RuneSelf {
			return false
		}
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Hostname() != "" && (u.Port() == "" || err == nil && port > 0)
}

// number returns the value of a number, or of a string that JavaScript reads as
// one. It reports false if there is none, or it is not finite.
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
