package config

import (
	"math"
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
	c, unknown, err := Parse(file)
	if err != nil || len(unknown) > 0 {
		t.Fatalf("unknown settings %q, error %v", unknown, err)
	}
	if c.Host != "localhost" || c.Port != 9187 || c.Interval != time.Minute || c.Discard || c.Secret == "" ||
		c.EndpointText != "http://www.example.com/internal/save_hits" || c.EndpointTarget != "/internal/save_hits" || c.Endpoint.Host != "www.example.com" {
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
	if _, unknown, err := Parse(file); err != nil || len(unknown) > 0 {
		t.Errorf("unknown settings %q, error %v", unknown, err)
	}
}

func TestAccepted(t *testing.T) {
	for text, check := range map[string]func(Config) bool{
		`"port": 9187`: func(c Config) bool {
			return c.Port == 9187 && c.Host == "" && c.Endpoint == nil && c.MaxMemory == 256<<20
		},
		`"port": "9187"`:          func(c Config) bool { return c.Port == 9187 },
		`"port": " 9187 "`:        func(c Config) bool { return c.Port == 9187 },
		`"port": 9.187e3`:         func(c Config) bool { return c.Port == 9187 },
		`"port": 0`:               func(c Config) bool { return c.Port == 0 },
		`"port": 65535`:           func(c Config) bool { return c.Port == 65535 },
		`"port": 1, "port": 2`:    func(c Config) bool { return c.Port == 2 },
		`"interval": "60"`:        func(c Config) bool { return c.Interval == time.Minute },
		`"interval": 0.5`:         func(c Config) bool { return c.Interval == 500*time.Millisecond },
		`"interval": "0.25"`:      func(c Config) bool { return c.Interval == 250*time.Millisecond },
		`"interval": 1e-9`:        func(c Config) bool { return c.Interval == time.Millisecond },
		`"interval": 2592000`:     func(c Config) bool { return c.Interval == 30*24*time.Hour },
		`"interval": 1e300`:       func(c Config) bool { return c.Interval == math.MaxInt64 },
		`"discard": true`:         func(c Config) bool { return c.Discard },
		`"discard": false`:        func(c Config) bool { return !c.Discard },
		`"discard": null`:         func(c Config) bool { return !c.Discard },
		`"maxmemory": null`:       func(c Config) bool { return c.MaxMemory == 256<<20 },
		`"maxmemory": 64`:         func(c Config) bool { return c.MaxMemory == 64<<20 },
		`"maxmemory": "0.5"`:      func(c Config) bool { return c.MaxMemory == 512<<10 },
		`"maxmemory": 1e300`:      func(c Config) bool { return c.MaxMemory == 1<<50 },
		`"secret": "s"`:           func(c Config) bool { return c.Secret == "s" },
		`"secret": 12345`:         func(c Config) bool { return c.Secret == "12345" },
		`"secret": 1e21`:          func(c Config) bool { return c.Secret == "1e+21" },
		`"secret": 0`:             func(c Config) bool { return c.Secret == "" },
		`"secret": ""`:            func(c Config) bool { return c.Secret == "" },
		`"host": ""`:              func(c Config) bool { return c.Host == "" },
		`"host": null`:            func(c Config) bool { return c.Host == "" },
		`"host": "::1"`:           func(c Config) bool { return c.Host == "::1" },
		`"endpoint": ""`:          func(c Config) bool { return c.Endpoint == nil },
		`"endpoint": false`:       func(c Config) bool { return c.Endpoint == nil },
		`"endpoint": "HTTP://h"`:  func(c Config) bool { return c.Endpoint.Scheme == "http" && c.EndpointText == "HTTP://h" },
		`"endpoint": " http://h"`: func(c Config) bool { return c.EndpointText == " http://h" && c.EndpointTarget == "/" },
		`"endpoint": "http://h/100%/a'b\\c/é?d e#f"`: func(c Config) bool { return c.EndpointTarget == "/100%/a%27b/c/é?d%20e" },
		`"endpoint": "http:\\\\h\\a"`:                func(c Config) bool { return c.Endpoint.Host == "h" && c.EndpointTarget == "/a" },
		`"endpoint": "http://h?"`:                    func(c Config) bool { return c.EndpointTarget == "/" },
		`"endpoint": "http://u:p%2F@h:1/a:b@c?d"`: func(c Config) bool {
			return c.EndpointText == "http://u:xxxxx@h:1/a:b@c?d" && c.Endpoint.User.String() == "u:p%2F"
		},
		`"endpoint": "https://h/a:b@c?d"`:             func(c Config) bool { return c.EndpointText == "https://h/a:b@c?d" },
		`"sslkey": "k", "sslcert": "c"`:               func(c Config) bool { return c.SSLKey == "k" && c.SSLCert == "c" && c.SSLCA == "" },
		`"sslkey": "k", "sslcert": "c", "sslca": "a"`: func(c Config) bool { return c.SSLCA == "a" },
	} {
		// The last of two settings of one name counts, as in JavaScript.
		c, unknown, err := parse(`{"port": 1, "interval": 1, ` + text + `}`)
		if err != nil || len(unknown) > 0 || !check(c) {
			t.Errorf("%s: got %+v, unknown settings %q, error %v", text, c, unknown, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"interval": 1}`:                                           `port: missing; want a number from 0 to 65535`,
		`{"interval": 1, "port": null}`:                             `port: missing; want a number from 0 to 65535`,
		`{"interval": 1, "port": -1}`:                               `port: want a number from 0 to 65535 (got -1)`,
		`{"interval": 1, "port": 65536}`:                            `port: want a number from 0 to 65535 (got 65536)`,
		`{"interval": 1, "port": 80.5}`:                             `port: want a number from 0 to 65535 (got 80.5)`,
		`{"interval": 1, "port": "/tmp/socket"}`:                    `port: want a number from 0 to 65535 (got "/tmp/socket")`,
		`{"interval": 1, "port": ""}`:                               `port: want a number from 0 to 65535 (got "")`,
		`{"interval": 1, "port": true}`:                             `port: want a number from 0 to 65535 (got true)`,
		`{"interval": 1, "port": [1]}`:                              `port: want a number from 0 to 65535 (got an array)`,
		`{"port": 1}`:                                               `interval: missing; want a number of seconds above 0`,
		`{"port": 1, "interval": 0}`:                                `interval: want a number of seconds above 0 (got 0)`,
		`{"port": 1, "interval": -5}`:                               `interval: want a number of seconds above 0 (got -5)`,
		`{"port": 1, "interval": "60s"}`:                            `interval: want a number of seconds above 0 (got "60s")`,
		`{"port": 1, "interval": 1e999}`:                            `interval: want a number of seconds above 0 (got 1e999)`,
		`{"port": 1, "interval": {"s": 1}}`:                         `interval: want a number of seconds above 0 (got an object)`,
		`{"port": 1, "interval": 1, "host": 5}`:                     `host: want a string (got 5)`,
		`{"port": 1, "interval": 1, "discard": "false"}`:            `discard: want true or false (got "false")`,
		`{"port": 1, "interval": 1, "discard": 0}`:                  `discard: want true or false (got 0)`,
		`{"port": 1, "interval": 1, "endpoint": 5}`:                 `endpoint: want a string (got 5)`,
		`{"port": 1, "interval": 1, "endpoint": "h:1/x"}`:           `endpoint: want a URL with http:// or https:// and a host (got "h:1/x")`,
		`{"port": 1, "interval": 1, "endpoint": "/x"}`:              `endpoint: want a URL with http:// or https:// and a host (got "/x")`,
		`{"port": 1, "interval": 1, "endpoint": "ftp://h"}`:         `endpoint: want a URL with http:// or https:// and a host (got "ftp://h")`,
		`{"port": 1, "interval": 1, "endpoint": "http://"}`:         `endpoint: want a URL with http:// or https:// and a host (got "http://")`,
		`{"port": 1, "interval": 1, "endpoint": "http://ü/"}`:       `endpoint: want a URL with http:// or https:// and a host (got "http://ü/")`,
		`{"port": 1, "interval": 1, "endpoint": "http://h:65536/"}`: `endpoint: want a URL with http:// or https:// and a host (got "http://h:65536/")`,
		`{"port": 1, "interval": 1, "endpoint": "http://h\n/"}`:     `endpoint: want a URL with http:// or https:// and a host (got "http://h\n/")`,
		`{"port": 1, "interval": 1, "sslkey": "k"}`:                 `sslcert: missing, but needed for sslkey (got "k")`,
		`{"port": 1, "interval": 1, "sslcert": "c"}`:                `sslkey: missing, but needed for sslcert (got "c")`,
		`{"port": 1, "interval": 1, "sslca": "a"}`:                  `sslca: of no use without sslkey and sslcert`,
		`{"port": 1, "interval": 1, "sslkey": 1, "sslcert": "c"}`:   `sslkey: want a string (got 1)`,

		`{"port": 1, "interval": 1, "maxmemory": 0}`:     `maxmemory: want a number of megabytes above 0 (got 0)`,
		`{"port": 1, "interval": 1, "maxmemory": "1GB"}`: `maxmemory: want a number of megabytes above 0 (got "1GB")`,

		"":                   `the file is empty`,
		" \n":                `the file is empty`,
		"[]":                 `want a JSON object (got an array)`,
		"null":               `want a JSON object (got null)`,
		`"a"`:                `want a JSON object (got a string)`,
		"12":                 `want a JSON object (got a number)`,
		"{\n  \"é\": 1,\n}":  `line 3, column 1: invalid character '}' looking for beginning of object key string`,
		`{"é": x}`:           `line 1, column 7: invalid character 'x' looking for beginning of value`,
		"{\n\"port\": 1":     `line 2, column 10: unexpected end of JSON input`,
		`{"port": 1} x`:      `line 1, column 13: invalid character 'x' after top-level value`,
		"{\"port\": 1} // x": `line 1, column 13: invalid character '/' after top-level value`,
		"\uFEFF{}":           `line 1, column 1: invalid character 'ï' looking for beginning of value`,
	} {
		if _, _, err := parse(text); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
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
		`"endpoint": "http://user:hunter2@host:99999/"`,
		`"endpoint": ["http://user:hunter2@host/"]`,
		`"endpoint": {"url": "http://user:hunter2@host/"}`,
		`"sslkey": "-----BEGIN PRIVATE KEY-----\nhunter2"`,
		`"sslkey": ["-----BEGIN PRIVATE KEY-----", "hunter2"]`,
	} {
		_, _, err := parse(`{"port": 1, "interval": 1, ` + text + `}`)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one line without the secret", text, err)
		}
	}
}

func TestUnknownSettings(t *testing.T) {
	_, unknown, err := parse(`{"Port": 1, "port": 1, "intervall": 60, "discrad": true}`)
	if !slices.Equal(unknown, []string{"Port", "discrad", "intervall"}) || err == nil {
		t.Errorf("unknown settings %q and error %v, want the three and one", unknown, err)
	}
}
