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
	"net/url"
	"os"
	"slices"
	"time"
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
	Journal        string // the directory that keeps the counts; empty for none
	MaxMemory      int64  // bytes that the keys may take; at least one key fits
	MaxConnections int    // at least 1, or 0 to leave the number to the server
	Metrics        string // host:port, or the path of a Unix socket, with a slash; empty for none

	Endpoint       *url.URL // scheme (http or https), host and user; nil for none
	EndpointTarget string   // path and query, escaped
	EndpointText   string   // as it was written, for the log; secrets are replaced with xxxxx

	// Names of files in PEM. SSLKey and SSLCert are both set, or all three are empty.
	SSLKey, SSLCert, SSLCA string
}

// NoPort is the port of a configuration that has none. It will do if the daemon
// inherits a socket from systemd, and otherwise is ErrNoPort.
const NoPort = -1

// ErrNoPort says that the setting port is missing.
var ErrNoPort = errors.New("port: missing; want " + wantPort)

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
// and a host beside a socket. A warning is a line without its end. An error is one
// line that names the setting, what it should be and what it is. Warnings and errors
// hold no secret and no password.
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
	s := settings{values: values}
	port, socket := s.port("port")
	config = Config{
		Host:     s.host("host"),
		Port:     port,
		Socket:   socket,
		Interval: s.interval("interval"),
		Discard:  s.flag("discard"),
		Secret:   s.secret("secret"),

		Journal:        s.text("journal"),
		MaxMemory:      s.megabytes("maxmemory"),
		MaxConnections: s.count("maxconnections"),
		Metrics:        s.address("metrics"),

		SSLKey:  s.file("sslkey"),
		SSLCert: s.file("sslcert"),
		SSLCA:   s.file("sslca"),
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
	}
	return nil
}
