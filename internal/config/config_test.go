package config

import (
	"encoding/json"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func parse(text string) (Config, []string, error) {
	return Parse(strings.NewReader(text))
}

func TestExample(t *testing.T) {
	file, err := os.Open("../../config.example.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, warnings, err := Parse(file)
	if err != nil || len(warnings) > 0 {
		t.Fatalf("warnings %q, error %v", warnings, err)
	}
	if c.Host != "localhost" || c.Port != 9187 || c.Interval != time.Minute || c.Discard || c.Secret == "" ||
		c.EndpointText != "http://www.example.com/internal/save_hits" ||
		c.EndpointTarget != "/internal/save_hits" || c.Endpoint.Host != "www.example.com" {
		t.Errorf("got %+v", c)
	}
}

// The configuration of make run is complete, too.
func TestRecipe(t *testing.T) {
	file, err := os.Open("../../testdata/recipes/receiver/config.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, warnings, err := Parse(file); err != nil || len(warnings) > 0 {
		t.Errorf("warnings %q, error %v", warnings, err)
	}
}

func TestAccepted(t *testing.T) {
	for text, check := range map[string]func(Config) bool{
		`"port": 9187`: func(c Config) bool {
			return c.Port == 9187 && c.Host == "" && c.Socket == "" && c.Endpoint == nil && c.MaxMemory == 0 &&
				c.MaxConnections == 0 && c.Journal == "" && c.KeepAlive == 75*time.Second
		},
		`"port": "9187"`:                             func(c Config) bool { return c.Port == 9187 },
		`"port": " 9187 "`:                           func(c Config) bool { return c.Port == 9187 },
		`"port": 9.187e3`:                            func(c Config) bool { return c.Port == 9187 },
		`"port": 0`:                                  func(c Config) bool { return c.Port == 0 },
		`"port": 65535`:                              func(c Config) bool { return c.Port == 65535 },
		`"port": 1, "port": 2`:                       func(c Config) bool { return c.Port == 2 },
		`"port": "/run/p.socket"`:                    func(c Config) bool { return c.Socket == "/run/p.socket" && c.Port == 0 },
		`"port": "./80"`:                             func(c Config) bool { return c.Socket == "./80" && c.Port == 0 },
		`"interval": "60"`:                           func(c Config) bool { return c.Interval == time.Minute },
		`"interval": 0.5`:                            func(c Config) bool { return c.Interval == 500*time.Millisecond },
		`"interval": "0.25"`:                         func(c Config) bool { return c.Interval == 250*time.Millisecond },
		`"interval": 1e-9`:                           func(c Config) bool { return c.Interval == time.Millisecond },
		`"interval": 2592000`:                        func(c Config) bool { return c.Interval == 30*24*time.Hour },
		`"interval": 1e300`:                          func(c Config) bool { return c.Interval == math.MaxInt64 },
		`"discard": true`:                            func(c Config) bool { return c.Discard },
		`"discard": false`:                           func(c Config) bool { return !c.Discard },
		`"discard": null`:                            func(c Config) bool { return !c.Discard },
		`"maxmemory": null`:                          func(c Config) bool { return c.MaxMemory == 0 },
		`"maxmemory": 64`:                            func(c Config) bool { return c.MaxMemory == 64<<20 },
		`"maxmemory": "0.5"`:                         func(c Config) bool { return c.MaxMemory == 512<<10 },
		`"maxmemory": 1e300`:                         func(c Config) bool { return c.MaxMemory == 1<<50 },
		`"maxmemory": 0.02`:                          func(c Config) bool { return c.MaxMemory >= 20<<10+128 }, // the longest key
		`"maxconnections": null`:                     func(c Config) bool { return c.MaxConnections == 0 },
		`"maxconnections": 1`:                        func(c Config) bool { return c.MaxConnections == 1 },
		`"maxconnections": "5e3"`:                    func(c Config) bool { return c.MaxConnections == 5000 },
		`"port": null`:                               func(c Config) bool { return c.Port == NoPort && c.Socket == "" },
		`"metrics": ""`:                              func(c Config) bool { return c.Metrics == "" },
		`"metrics": null`:                            func(c Config) bool { return c.Metrics == "" },
		`"metrics": "127.0.0.1:9188"`:                func(c Config) bool { return c.Metrics == "127.0.0.1:9188" },
		`"metrics": "[::1]:0"`:                       func(c Config) bool { return c.Metrics == "[::1]:0" },
		`"metrics": ":9188"`:                         func(c Config) bool { return c.Metrics == ":9188" },
		`"metrics": "/run/m.socket"`:                 func(c Config) bool { return c.Metrics == "/run/m.socket" },
		`"maxconnections": 1e300`:                    func(c Config) bool { return c.MaxConnections == math.MaxInt32 },
		`"journal": null`:                            func(c Config) bool { return c.Journal == "" },
		`"journal": ""`:                              func(c Config) bool { return c.Journal == "" },
		`"journal": "/a:b/c@d"`:                      func(c Config) bool { return c.Journal == "/a:b/c@d" },
		`"journal": "/a/b c"`:                        func(c Config) bool { return c.Journal == "/a/b c" },
		`"secret": "s"`:                              func(c Config) bool { return c.Secret == "s" },
		`"secret": 12345`:                            func(c Config) bool { return c.Secret == "12345" },
		`"secret": 1e21`:                             func(c Config) bool { return c.Secret == "1e+21" },
		`"secret": 0`:                                func(c Config) bool { return c.Secret == "" },
		`"secret": ""`:                               func(c Config) bool { return c.Secret == "" },
		`"host": ""`:                                 func(c Config) bool { return c.Host == "" },
		`"host": null`:                               func(c Config) bool { return c.Host == "" },
		`"host": "::1"`:                              func(c Config) bool { return c.Host == "::1" },
		`"host": "fe80::1%eth0"`:                     func(c Config) bool { return c.Host == "fe80::1%eth0" },
		`"endpoint": ""`:                             func(c Config) bool { return c.Endpoint == nil },
		`"endpoint": false`:                          func(c Config) bool { return c.Endpoint == nil },
		`"endpoint": "HTTP://h"`:                     func(c Config) bool { return c.Endpoint.Scheme == "http" && c.EndpointText == "HTTP://h" },
		`"endpoint": " http://h"`:                    func(c Config) bool { return c.EndpointText == " http://h" && c.EndpointTarget == "/" },
		`"endpoint": "http://h/100%/a'b\\c/é?d e#f"`: func(c Config) bool { return c.EndpointTarget == "/100%/a%27b/c/é?d%20e" },
		`"endpoint": "http:\\\\h\\a"`:                func(c Config) bool { return c.Endpoint.Host == "h" && c.EndpointTarget == "/a" },
		`"endpoint": "http://h?"`:                    func(c Config) bool { return c.EndpointTarget == "/" },
		`"endpoint": "http://u:p%2F@h:1/a:b@c?d"`: func(c Config) bool {
			return c.EndpointText == "http://u:xxxxx@h:1/a:b@c?xxxxx" && c.Endpoint.User.String() == "u:p%2F"
		},
		`"endpoint": "https://h/a:b@c#d@e"`: func(c Config) bool {
			return c.EndpointText == "https://h/a:b@c#xxxxx" && c.EndpointTarget == "/a:b@c"
		},
		`"endpoint": "http://unix:/run/app.sock:/save?a"`: func(c Config) bool {
			return *c.Endpoint == url.URL{Scheme: "http", Host: "localhost", Path: "/run/app.sock"} &&
				c.EndpointTarget == "/save?a" && c.EndpointText == "http://unix:/run/app.sock:/save?xxxxx"
		},
		`"endpoint": "http://unix:/run/app.sock"`: func(c Config) bool {
			return c.Endpoint.Path == "/run/app.sock" && c.EndpointTarget == "/"
		},
		`"endpoint": "HTTP://u:p@Unix:/run/app.sock:/save"`: func(c Config) bool {
			return c.Endpoint.Path == "/run/app.sock" && c.Endpoint.Host == "localhost" && c.Endpoint.User.String() == "u:p" &&
				c.EndpointTarget == "/save" && c.EndpointText == "HTTP://u:xxxxx@Unix:/run/app.sock:/save"
		},
		`"endpoint": "http://unix/run"`: func(c Config) bool { return c.Endpoint.Host == "unix" && c.Endpoint.Path == "" },
		`"keepalive": null`:             func(c Config) bool { return c.KeepAlive == 75*time.Second },
		`"keepalive": 620`:              func(c Config) bool { return c.KeepAlive == 620*time.Second },
		`"keepalive": "0.5"`:            func(c Config) bool { return c.KeepAlive == 500*time.Millisecond },
		`"port": 9187, "host": "127.0.0.1", "metrics": "10.0.0.1:9187"`: func(c Config) bool { return c.Metrics != "" },
		`"port": 9187, "host": "127.0.0.1", "metrics": "[::1]:9187"`:    func(c Config) bool { return c.Metrics != "" },
		`"port": 0, "metrics": ":0"`:                                    func(c Config) bool { return c.Metrics == ":0" },
		`"port": "/a", "metrics": "/b"`:                                 func(c Config) bool { return c.Metrics == "/b" },
		`"sslkey": "k", "sslcert": "c"`:                                 func(c Config) bool { return c.SSLKey == "k" && c.SSLCert == "c" && c.SSLCA == "" },
		`"sslkey": "k", "sslcert": "c", "sslca": "a"`:                   func(c Config) bool { return c.SSLCA == "a" },
	} {
		// A setting that is in text as well has the last value, as in JavaScript.
		c, warnings, err := parse(`{"port": 1, "interval": 1, ` + text + `}`)
		if err != nil || strings.Contains(strings.Join(warnings, "\n"), "unknown") || !check(c) {
			t.Errorf("%s: got %+v, warnings %q, error %v", text, c, warnings, err)
		}
	}
}

// A setting that makes no sense is refused. The error says what it should be.
func TestRefused(t *testing.T) {
	const (
		wantedPort = `port: want a number from 0 to 65535, or the path of a socket, with a slash `
		noAddress  = `metrics: want an address such as 127.0.0.1:9188, or the path of a socket, with a slash `
		noURL      = `endpoint: want a URL with http:// or https:// and a host `
	)
	long := "/" + strings.Repeat("x", 107)
	for text, want := range map[string]string{
		`"port": -1`:    wantedPort + `(got -1)`,
		`"port": 65536`: wantedPort + `(got 65536)`,
		`"port": 80.5`:  wantedPort + `(got 80.5)`,
		`"port": "abc"`: wantedPort + `(got "abc")`,
		`"port": ""`:    wantedPort + `(got "")`,
		`"port": true`:  wantedPort + `(got true)`,
		`"port": [1]`:   wantedPort + `(got an array)`,

		`"port": "` + long + `"`: `port: want the path of a socket with at most 107 bytes (got 108 bytes)`,
		`"port": "http://h/"`:    wantedPort + `(got "http://h/")`,

		`"metrics": 9188`:             noAddress + `(got 9188)`,
		`"metrics": "9188"`:           noAddress + `(got "9188")`,
		`"metrics": "localhost"`:      noAddress + `(got "localhost")`,
		`"metrics": "h:65536"`:        noAddress + `(got "h:65536")`,
		`"metrics": "h:http"`:         noAddress + `(got "h:http")`,
		`"metrics": "::1:9188"`:       noAddress + `(got "::1:9188")`,
		`"metrics": "http://h:9188/"`: noAddress + `(got "http://h:9188/")`,
		`"metrics": true`:             noAddress + `(got true)`,
		`"metrics": "*:9188"`: `metrics: want a name or an address before the port; to listen on all interfaces, ` +
			`write :9188 (got "*:9188")`,
		`"metrics": "bücher.example:9188"`: `metrics: want a name in ASCII: write xn--bcher-kva.example ` +
			`(got "bücher.example:9188")`,
		`"metrics": "` + long + `"`: `metrics: want the path of a socket with at most 107 bytes (got 108 bytes)`,

		`"port": 9187, "metrics": ":9187"`: `metrics: want another address than that of host and port (got ":9187")`,
		`"port": 9187, "host": "a.example", "metrics": "A.example:9187"`: `metrics: want another address than that of host ` +
			`and port (got "A.example:9187")`,
		`"port": 9187, "host": "0.0.0.0", "metrics": "127.0.0.1:9187"`: `metrics: want another address than that of host ` +
			`and port (got "127.0.0.1:9187")`,
		`"port": 9187, "host": "localhost", "metrics": "127.0.0.1:9187"`: `metrics: want another address than that of host ` +
			`and port (got "127.0.0.1:9187")`,
		`"port": "/run/s", "metrics": "/run//s"`: `metrics: want another address than that of host and port (got "/run//s")`,

		`"interval": 0`:        `interval: want a number of seconds above 0 (got 0)`,
		`"interval": -5`:       `interval: want a number of seconds above 0 (got -5)`,
		`"interval": "60s"`:    `interval: want a number of seconds above 0 (got "60s")`,
		`"interval": 1e999`:    `interval: want a number of seconds above 0 (got 1e999)`,
		`"interval": {"s": 1}`: `interval: want a number of seconds above 0 (got an object)`,

		`"keepalive": 0`:     `keepalive: want a number of seconds above 0 (got 0)`,
		`"keepalive": "75s"`: `keepalive: want a number of seconds above 0 (got "75s")`,
		`"keepalive": false`: `keepalive: want a number of seconds above 0 (got false)`,

		`"journal": "file:///a"`: `journal: want the name of a directory (got a URL)`,
		`"sslkey": "http://h/k"`: `sslkey: want the name of a file (got a URL)`,

		`"journal": true`:  `journal: want a string (got true)`,
		`"journal": ["a"]`: `journal: want a string (got an array)`,

		`"host": 5`:                `host: want a string (got 5)`,
		`"host": "http://h"`:       `host: want a name or an address alone, without a scheme or a path (got "http://h")`,
		`"host": "h/x"`:            `host: want a name or an address alone, without a scheme or a path (got "h/x")`,
		`"host": "*"`:              `host: want a name or an address; to listen on all interfaces, remove the setting (got "*")`,
		`"host": "Bücher.example"`: `host: want a name in ASCII: write xn--bcher-kva.example (got "Bücher.example")`,
		`"host": "h:80"`:           `host: want a name or an address alone, and the port in the setting port (got "h:80")`,
		`"host": "[::1]:80"`:       `host: want an IPv6 address without brackets, and the port in the setting port (got "[::1]:80")`,

		`"discard": "false"`: `discard: want true or false (got "false")`,
		`"discard": 0`:       `discard: want true or false (got 0)`,

		`"endpoint": 5`:         `endpoint: want a string (got 5)`,
		`"endpoint": "h:1/x"`:   noURL + `(got "h:1/x")`,
		`"endpoint": "/x"`:      noURL + `(got "/x")`,
		`"endpoint": "ftp://h"`: noURL + `(got "ftp://h")`,
		`"endpoint": "http://"`: noURL + `(got "http://")`,
		`"endpoint": "http://bücher.example/x"`: `endpoint: want a URL with http:// or https:// and a host in ASCII: ` +
			`write xn--bcher-kva.example (got "http://bücher.example/x")`,
		`"endpoint": "http://u\u0308/"`: `endpoint: want a URL with http:// or https:// and a host in ASCII, in its xn-- form ` +
			"(got \"http://u\u0308/\")",
		`"endpoint": "http://unix:` + long + `:/"`: `endpoint: want the path of a socket with at most 107 bytes (got 108 bytes)`,
		`"endpoint": "unix:/run/s:/x"`: `endpoint: want a URL with http:// or https:// and a host, or a socket ` +
			`as in http://unix:/run/app.sock:/save_hits (got "unix:/run/s:/x")`,
		`"endpoint": "http://unix:s:/x"`: `endpoint: want a URL with http:// or https:// and a host, or a socket ` +
			`as in http://unix:/run/app.sock:/save_hits (got "http://unix:s:/x")`,
		`"endpoint": "https://[fe80::1%eth0]:8443/"`: `endpoint: want a URL with http:// or https:// and a host; ` +
			`the zone of an IPv6 address begins with %25 (got "https://[fe80::1%eth0]:8443/")`,
		`"endpoint": "http://h:65536/"`: noURL + `(got "http://h:65536/")`,
		`"endpoint": "http://h/a\nb"`:   noURL + `(got "http://h/a\nb")`,
		`"endpoint": "http://h/?a\tb"`:  noURL + `(got "http://h/?xxxxx")`,
		`"endpoint": "http://h\n/"`:     noURL + `(got "http://h\n/")`,
		`"endpoint": "ftp://h?a=b&c"`:   noURL + `(got "ftp://h?a=xxxxx&xxxxx")`,

		`"sslkey": "k"`:               `sslcert: missing, but needed for sslkey (got "k")`,
		`"sslkey": 1, "sslcert": "c"`: `sslkey: want a string (got 1)`,

		`"sslcert": "c"`: `sslkey: missing, but needed for sslcert (got "c")`,

		`"sslca": "a"`: `sslca: of no use without sslkey and sslcert`,

		`"maxmemory": 0`:     `maxmemory: want a number of megabytes, 0.02 or more (got 0)`,
		`"maxmemory": 0.019`: `maxmemory: want a number of megabytes, 0.02 or more (got 0.019)`,
		`"maxmemory": "1GB"`: `maxmemory: want a number of megabytes, 0.02 or more (got "1GB")`,

		`"maxconnections": 0`:     `maxconnections: want a whole number, 1 or more (got 0)`,
		`"maxconnections": 1.5`:   `maxconnections: want a whole number, 1 or more (got 1.5)`,
		`"maxconnections": "all"`: `maxconnections: want a whole number, 1 or more (got "all")`,
		`"maxconnections": false`: `maxconnections: want a whole number, 1 or more (got false)`,
	} {
		// The last value of a setting counts.
		if _, _, err := parse(`{"port": 1, "interval": 1, ` + text + `}`); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

// A file that holds no JSON object, or not the two settings that are required, is
// refused. The error says where the mistake is.
func TestRefusedFiles(t *testing.T) {
	for text, want := range map[string]string{
		`{"port": -1, "interval": 0}`: `port: want a number from 0 to 65535, or the path of a socket, with a slash (got -1)`,
		`{"port": 1}`:                 `interval: missing; want a number of seconds above 0`,

		"":                     `the file is empty`,
		" \n":                  `the file is empty`,
		"[]":                   `want a JSON object (got an array)`,
		"null":                 `want a JSON object (got null)`,
		`"a"`:                  `want a JSON object (got a string)`,
		"12":                   `want a JSON object (got a number)`,
		`{"é": +1}`:            `line 1, column 7: invalid character '+' looking for beginning of value`,
		`{"port": 1} x`:        `line 1, column 13: invalid character 'x' after top-level value`,
		"{\"a\": 1\n\"b\": 2}": `line 2, column 1: a comma is missing before this`,
		`{"a": [1 "b"]}`:       `line 1, column 10: a comma is missing before this`,
		`{"a" "b"}`:            `line 1, column 6: a colon is missing before this`,
		`{'port': 1}`:          `line 1, column 2: text has double quotes; write " in place of '`,
		`{"host": 'h'}`:        `line 1, column 10: text has double quotes; write " in place of '`,
		`{port: 1}`:            `line 1, column 2: a name has double quotes; write "port"`,
		`{"a": 1, é: 1}`:       `line 1, column 10: invalid character 'é' outside of a string`,
		`{"discard": True}`:    `line 1, column 13: write true, in small letters`,
		`{"discard": fALSE}`:   `line 1, column 13: write false, in small letters`,
		`{"secret": None}`:     `line 1, column 12: write null`,
		`{"secret": hunter}`:   `line 1, column 12: text has double quotes; write them before and after this`,
		`port = 1`:             `line 1, column 1: invalid character 'p' looking for beginning of value`,
		"{\n\"port\": 1":       `line 2, column 10: the file ends inside of the JSON text; a quote, bracket or brace is not closed`,
		`{"é": "x`:             `line 1, column 9: the file ends inside of the JSON text; a quote, bracket or brace is not closed`,
		`{"é": "C:\dir"}`:      `line 1, column 10: invalid escape sequence in a string; a backslash is written \\`,
		`{"secret": "\u12"}`:   `line 1, column 13: invalid escape sequence in a string; a backslash is written \\`,
		"{\"a\": \"x\n\"}":     `line 1, column 9: the string has no closing quote on its line`,
		"{\"a\": \"x\r\n\"}":   `line 1, column 9: the string has no closing quote on its line`,
		"{\"a\": \"x\ty\"}":    `line 1, column 9: invalid character '\t' in a string; write it as \u0009`,
		"{\n “a”: 1}":          `line 2, column 2: text has double quotes; write " in place of “`,
		"{\"secret\": `a`}":    "line 1, column 12: text has double quotes; write \" in place of `",
		`{"a": , "b": 1}`:      `line 1, column 7: a value is missing before this`,
		`{"a": }`:              `line 1, column 7: a value is missing before this`,
		"{\xE9: 1}":            `line 1, column 2: invalid character '�' outside of a string`,
		`{,}`:                  `line 1, column 2: invalid character ',' looking for beginning of object key string`,
		`{"a": / }`:            `line 1, column 7: invalid character '/' looking for beginning of value`,

		"// x\n{}":           `line 1, column 1: JSON has no comments; remove this one`,
		"{\"port\": 1} // x": `line 1, column 13: JSON has no comments; remove this one`,
		"{\n  /* x */ \"a\"": `line 2, column 3: JSON has no comments; remove this one`,
		"{\n\"a\": 1 # x\n}": `line 2, column 8: JSON has no comments; remove this one`,
		"{\n  \"é\": 1,\n}":  `line 2, column 9: JSON has no comma after the last value; remove this one`,
		`{"a": [1, 2 , ]}`:   `line 1, column 13: JSON has no comma after the last value; remove this one`,

		"\uFEFF{}":           `the file begins with a byte order mark; save it as UTF-8 without a byte order mark`,
		"\xFF\xFE{\x00}\x00": `the file is UTF-16; save it as UTF-8 without a byte order mark`,
		"\xFE\xFF\x00{\x00}": `the file is UTF-16; save it as UTF-8 without a byte order mark`,
		"{\x00\n\x00}\x00":   `the file is UTF-16; save it as UTF-8 without a byte order mark`,
		"\x00{\x00}":         `the file is UTF-16; save it as UTF-8 without a byte order mark`,
	} {
		if _, _, err := parse(text); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for text, want := range map[string]string{
		// Without a user and a query the text is as it was written.
		` HTTP:\\h:80\a/b@c:d@e`:        ` HTTP:\\h:80\a/b@c:d@e`,
		`https://h/a#`:                  `https://h/a#`,
		`https://h/a#hunter2`:           `https://h/a#xxxxx`,
		`https://h#hunter2@x`:           `https://h#xxxxx`,
		`https://h/a#hunter2?hunter2`:   `https://h/a#xxxxx?xxxxx`,
		`https://h/a?`:                  `https://h/a?`,
		`http://user:hunter2@h:80/x`:    `http://user:xxxxx@h:80/x`,
		`http:\\user:hunter2@h:80\x`:    `http:\\user:xxxxx@h:80\x`,
		`http:/\user:hunter2@h`:         `http:/\user:xxxxx@h`,
		`http://user:hunter2:3@h`:       `http://user:xxxxx@h`,
		`http://user:hunter2@3@h`:       `http://user:xxxxx@h`,
		`http://me@work:hunter2@h`:      `http://xxxxx@work:xxxxx@h`,
		`http://:hunter2@h`:             `http://:xxxxx@h`,
		`http://user:1#hunter2@h/x`:     `http://user:xxxxx@h/x`,
		`http://hunter2@h/x`:            `http://xxxxx@h/x`,
		`http:\\hunter2@h:80`:           `http:\\xxxxx@h:80`,
		`https://h/x?token=hunter2`:     `https://h/x?token=xxxxx`,
		`https:\\h\x?token=hunter2&a=b`: `https:\\h\x?token=xxxxx&a=xxxxx`,
		`http://h?a=b=hunter2&&c=`:      `http://h?a=xxxxx&&c=xxxxx`,
		`http://h/?hunter2`:             `http://h/?xxxxx`,
		`http://h/?a=b#hunter2?c=d`:     `http://h/?a=xxxxx`,
		`http://h/?a=http://u:p@i`:      `http://h/?a=xxxxx`,
		`http://u:hunter2@h/?a=b@c&d=@`: `http://u:xxxxx@h/?a=xxxxx&d=xxxxx`,
	} {
		encoded, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		c, _, err := parse(`{"port": 1, "interval": 1, "endpoint": ` + string(encoded) + `}`)
		if err != nil || c.EndpointText != want {
			t.Errorf("%s: the log has %q, want %q (error %v)", text, c.EndpointText, want, err)
		}
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	for _, text := range []string{
		`"secret": ["hunter2"]`,
		`"secret": {"a": "hunter2"}`,
		`"endpoint": "ftp://user:hunter2@host/"`,
		`"endpoint": "http://user:hunter2/@host/"`,
		`"endpoint": "user:hunter2@host"`,
		`"endpoint": "ftp:\\\\user:hunter2@host\\x"`,
		`"endpoint": "ftp://host/?token=hunter2"`,
		`"endpoint": "host/?hunter2"`,
		`"endpoint": "http://user:pass?hunter2@host/"`,
		`"host": "user:hunter2@host"`,
		`"host": "http://host/?token=hunter2"`,
		`"endpoint": "http://user:hunter2@host:99999/"`,
		`"endpoint": ["http://user:hunter2@host/"]`,
		`"endpoint": {"url": "http://user:hunter2@host/"}`,
		`"sslkey": "-----BEGIN PRIVATE KEY-----\nhunter2"`,
		`"sslkey": ["-----BEGIN PRIVATE KEY-----", "hunter2"]`,
		`"sslcert": "https://user:hunter2@host/cert.pem", "sslkey": "key.pem"`,
		`"metrics": "http://user:hunter2@host:9188/"`,
		`"metrics": "user:hunter2@host"`,
		`"metrics": "http://host:9188/?hunter2"`,
		`"metrics": "http://host:9188/#hunter2"`,
		`"port": "http://user:hunter2@host/"`,
		`"port": "user:hunter2@host"`,
		`"journal": "redis://user:hunter2@host/"`,
		`"journal": "redis:/user:hunter2@host/"`,
		`"journal": "user:hunter2@host/x"`,
		`"port": "//user:hunter2@host/x"`,
		`"metrics": "http:/user:hunter2@host/"`,
		`"sslkey": "user:hunter2@host:1", "sslcert": "cert.pem"`,
		`"sslca": "http:\\\\user:hunter2@host"`,
		`"interval": "user:hunter2@host"`,
		`"endpoint": "ftp://host/#hunter2"`,
		`"host": "http://host/#hunter2"`,
		`"port": "http://host/;token=hunter2"`,
		`"secret": hunter2`,
		`"secret": "a" hunter2`,
		`"secret": 'hunter2'`,
	} {
		_, _, err := parse(`{"port": 1, "interval": 1, ` + text + `}`)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line without the secret", text, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	c, warnings, err := parse(`{"Port": 1, "port": 1, "port": 2, "secret": {"port": 1}, "port": 3,
		"intervall": 60, "discrad": true, "secret": "s", "discard": true, "discard": null}`)
	want := []string{
		`setting "port" is there more than once; the last value counts`,
		`setting "secret" is there more than once; the last value counts`,
		`setting "discard" is there more than once; the last value counts`,
		`unknown setting "Port" is ignored`,
		`unknown setting "discrad" is ignored`,
		`unknown setting "intervall" is ignored`,
	}
	if !slices.Equal(warnings, want) || err == nil {
		t.Errorf("warnings %q and error %v, want %q and the error of a missing interval", warnings, err, want)
	}
	if c.Port != 3 || c.Secret != "s" || c.Discard {
		t.Errorf("got %+v, want the last values", c)
	}
}

// A text that is not what its file seems to say, and a secret that is none.
func TestWarningsOfValues(t *testing.T) {
	const notUTF8 = `: a character is not UTF-8, and U+FFFD takes its place; save the file as UTF-8`
	const empty = `secret: it is empty, so the application cannot tell the daemon from others; remove the setting if that is meant`
	for text, want := range map[string][]string{
		"\"secret\": \"caf\xe9\"":                           {"secret" + notUTF8},
		"\"secret\": \"\\ud800\"":                           {"secret" + notUTF8},
		"\"endpoint\": \"http://h/\xe9\", \"secret\": \"\"": {"endpoint" + notUTF8, empty},
		`"secret": "café", "journal": ""`:                   nil,
		`"secret": null`:                                    nil,
	} {
		if _, got, err := parse(`{"port": 1, "interval": 1, ` + text + `}`); !slices.Equal(got, want) || err != nil {
			t.Errorf("%q: warnings %q, error %v, want %q", text, got, err, want)
		}
	}
}

// The examples of RFC 3492 that are letters alone, and names as they are in the world.
func TestHostsInASCII(t *testing.T) {
	for name, want := range map[string]string{
		"BÜCHER.example": "xn--bcher-kva.example",
		"mañana.com":     "xn--maana-pta.com",
		"例え.テスト":         "xn--r8jz45g.xn--zckzah",
		"straße.de":      "xn--strae-oqa.de",
		"почемужеонинеговорятпорусски": "xn--b1abfaaepdrnnbgefbadotcwatmq2g4l",
		"他们为什么不说中文":                    "xn--ihqwcrb4cv8a8dqg056pqjye",
		"ü":                            "xn--tda",
		"a\u0308.example":              "",
		"a☃b.example":                  "",
	} {
		if got, isASCII := asciiHost(name); got != want || isASCII {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got, isASCII := asciiHost("Host.example"); got != "Host.example" || !isASCII {
		t.Errorf("%q, %v, want no change", got, isASCII)
	}
}

func TestHostBesideASocket(t *testing.T) {
	c, warnings, err := parse(`{"host": "localhost", "port": "/run/p.socket", "interval": 1}`)
	want := []string{`host "localhost" is ignored, since port is the path of a socket`}
	if !slices.Equal(warnings, want) || err != nil || c.Socket != "/run/p.socket" {
		t.Errorf("got %+v, warnings %q, error %v, want the socket and %q", c, warnings, err, want)
	}
}
