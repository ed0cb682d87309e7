// Package config reads the settings: the original's JSON file, with the
// original's names. It accepts what the original accepts, and refuses what would
// make the original run wrongly, such as no interval (a flush each millisecond) or a
// key without a certificate (plain HTTP).
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Config is a checked configuration.
type Config struct {
	Host     string        // to listen on; empty for all interfaces
	Port     int           // 0 to 65535; 0 for a free one; NoPort if the setting is missing
	Socket   string        // the path of a Unix socket, which takes the place of Host and Port; empty for none
	Interval time.Duration // between flushes; at least a millisecond
	Discard  bool          // drop the hits of a flush that failed
	Secret   string        // sent with each flush; empty for none

	// The original does not have these settings.
	Journal        string        // the directory that keeps the counts; empty for none
	MaxMemory      int64         // bytes that the keys may take, and at least one key fits; 0 if the setting is missing
	MaxConnections int           // at least 1; 0 if the setting is missing
	KeepAlive      time.Duration // that a connection may be idle
	Metrics        string        // host:port, or the path of a Unix socket, with a slash; empty for none

	// Endpoint has the scheme (http or https), the host and the user; nil for none. For a
	// Unix socket, the host is localhost, and the path is that of the socket.
	Endpoint       *url.URL
	EndpointTarget string // path and query, escaped
	EndpointText   string // as it was written, for the log; secrets are replaced with xxxxx

	// Names of files in PEM. SSLKey and SSLCert are both set, or all three are empty.
	SSLKey, SSLCert, SSLCA string
}

// NoPort is the port of a configuration that has none. It will do if the daemon
// inherits a socket from systemd.
const NoPort = -1

// Load reads and checks the configuration in a file, as Parse does. Its errors
// begin with path.
func Load(path string) (config Config, warnings []string, err error) {
	file, err := os.Open(path)
	if err == nil {
		defer file.Close()
		config, warnings, err = Parse(file)
	}
	if of, ok := errors.AsType[*fs.PathError](err); ok {
		err = of.Err // without the call and the path
	}
	if err != nil {
		return Config{}, warnings, fmt.Errorf("%s: %w", path, err)
	}
	return config, warnings, nil
}

// Parse reads and checks a configuration. It returns warnings about settings that
// have no effect, with an error as well as without: repeated and unknown settings,
// and a host beside a socket; of an empty secret, and of text that is not UTF-8. A
// warning is a line without its end. An error is one line that names the setting, what
// it should be and what it is. Warnings and errors hold no value of secret, and of a
// value that may hold a password only what kind of value it is.
func Parse(r io.Reader) (config Config, warnings []string, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return Config{}, nil, err
	}
	values, repeated, err := object(text)
	if err != nil {
		return Config{}, nil, err
	}
	for _, name := range repeated {
		warnings = append(warnings, fmt.Sprintf("setting %q is there more than once; the last value counts", name))
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		switch text, ok := values[name].(string); {
		case ok && strings.ContainsRune(text, utf8.RuneError):
			warnings = append(warnings, fmt.Sprintf("%s: a character is not UTF-8, and U+FFFD takes its place; "+
				"save the file as UTF-8", name))
		case ok && name == "secret" && text == "":
			warnings = append(warnings, "secret: it is empty, so the application cannot tell the daemon from others; "+
				"remove the setting if that is meant")
		}
	}
	s := settings{values: values}
	port, socket := s.port("port")
	config = Config{
		Host:     s.host("host"),
		Port:     port,
		Socket:   socket,
		Interval: s.interval("interval"),
		Discard:  s.flag("discard"),
		Secret:   s.secret("secret"),

		Journal:        s.path("journal", "the name of a directory"),
		MaxMemory:      s.megabytes("maxmemory"),
		MaxConnections: s.count("maxconnections"),
		KeepAlive:      s.keepAlive("keepalive"),
		Metrics:        s.address("metrics"),

		SSLKey:  s.path("sslkey", "the name of a file"),
		SSLCert: s.path("sslcert", "the name of a file"),
		SSLCA:   s.path("sslca", "the name of a file"),
	}
	config.Endpoint, config.EndpointTarget, config.EndpointText = s.endpoint("endpoint")
	if s.err == nil {
		s.err = config.validate()
	}
	if config.Socket != "" && config.Host != "" {
		warnings = append(warnings, fmt.Sprintf("host %q is ignored, since port is the path of a socket", config.Host))
	}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		warnings = append(warnings, fmt.Sprintf("unknown setting %q is ignored", name))
	}
	return config, warnings, s.err
}

// validate checks the settings that depend on each other. If only some files of a
// certificate are set, the original ignores them, and serves plain HTTP.
func (c Config) validate() error {
	switch {
	case c.SSLKey != "" && c.SSLCert == "":
		return fmt.Errorf("sslcert: missing, but needed for sslkey (got %q)", c.SSLKey)
	case c.SSLCert != "" && c.SSLKey == "":
		return fmt.Errorf("sslkey: missing, but needed for sslcert (got %q)", c.SSLCert)
	case c.SSLCA != "" && c.SSLKey == "":
		return errors.New("sslca: of no use without sslkey and sslcert")
	case c.metricsTakePort():
		return fmt.Errorf("metrics: want another address than that of host and port (got %q)", c.Metrics)
	}
	return nil
}

// metricsTakePort reports whether metrics is an address at which the pixel is served.
func (c Config) metricsTakePort() bool {
	if c.Socket != "" {
		return filepath.Clean(c.Metrics) == filepath.Clean(c.Socket)
	}
	host, port, err := net.SplitHostPort(c.Metrics)
	if number, _ := strconv.Atoi(port); err != nil || number == 0 || number != c.Port {
		return false
	}
	isAll := func(host string) bool {
		ip, err := netip.ParseAddr(host)
		return host == "" || err == nil && ip.IsUnspecified()
	}
	isLocal := func(host string) bool { return host == "localhost" || host == "127.0.0.1" || host == "::1" }
	return isAll(host) || isAll(c.Host) || strings.EqualFold(host, c.Host) ||
		isLocal(host) && isLocal(c.Host) && (host == "localhost" || c.Host == "localhost")
}
