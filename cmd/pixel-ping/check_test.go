package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// runCheck runs pixel-ping --check in a folder, with a configuration that is written
// to config.json there.
func runCheck(t *testing.T, folder, text string) (status int, stdout, stderr string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command("--check", "config.json")
	cmd.Dir = folder
	var out, errors strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errors
	cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errors.String()
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	for name, text := range map[string]string{
		"encrypted.pem": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"text.pem":      "text",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const port = "port: want a number from 0 to 65535, or the path of a socket, with a slash"
	for text, want := range map[string]string{
		``:                     `the file is empty`,
		"\uFEFF{}":             `the file begins with a byte order mark; save it as UTF-8 without a byte order mark`,
		"\xFF\xFE{\x00}\x00":   `the file is UTF-16; save it as UTF-8 without a byte order mark`,
		"{\n// x\n\"port\": 1": `line 2, column 1: JSON has no comments; remove this one`,
		`{"port": 1,}`:         `line 1, column 11: JSON has no comma after the last value; remove this one`,
		`[1]`:                  `want a JSON object (got an array)`,

		`{"port": 1}`:                    `interval: missing; want a number of seconds above 0`,
		`{"interval": 1, "port": "abc"}`: port + ` (got "abc")`,
		`{"interval": 1, "port": 65536}`: port + ` (got 65536)`,
		`{"interval": "60s", "port": 1}`: `interval: want a number of seconds above 0 (got "60s")`,
		`{"interval": 1, "port": 1, "host": "http://h"}`: `host: want a name or an address alone, ` +
			`without a scheme or a path (got "http://h")`,
		`{"interval": 1, "port": 1, "host": "h:80"}`: `host: want a name or an address alone, ` +
			`and the port in the setting port (got "h:80")`,
		`{"interval": 1, "port": 1, "discard": "false"}`:    `discard: want true or false (got "false")`,
		`{"interval": 1, "port": 1, "secret": ["hunter2"]}`: `secret: want a string or a number (got an array)`,
		`{"interval": 1, "port": 1, "endpoint": "h/save"}`:  `endpoint: want a URL with http:// or https:// and a host (got "h/save")`,
		`{"interval": 1, "port": 1, "endpoint": "u:hunter2@h"}`: `endpoint: want a URL with http:// or https:// and a host ` +
			`(got one that may hold a password)`,
		`{"interval": 1, "port": 1, "maxmemory": 0.001}`:  `maxmemory: want a number of megabytes, 0.02 or more (got 0.001)`,
		`{"interval": 1, "port": 1, "maxconnections": 0}`: `maxconnections: want a whole number, 1 or more (got 0)`,
		`{"interval": 1, "port": 1, "metrics": 9188}`: `metrics: want an address such as 127.0.0.1:9188, ` +
			`or the path of a socket, with a slash (got 9188)`,
		`{"interval": 1, "port": 1, "metrics": "localhost:1"}`: `metrics: want another address than that of host and port ` +
			`(got "localhost:1")`,
		`{"interval": 1, "port": "/` + strings.Repeat("x", 107) + `"}`: `port: want the path of a socket with at most 107 bytes ` +
			`(got 108 bytes)`,
		`{"interval": 1, "port": 1, "journal": "config.json"}`:   `journal config.json: not a directory`,
		`{"interval": 1, "port": 1, "journal": "config.json/j"}`: `journal config.json/j: not a directory`,
		`{"interval": 1, "port": 1, "journal": "no/j"}`:          `journal no/j: no such file or directory`,
		`{"interval": 1, "port": 1, "sslkey": "key.pem"}`:        `sslcert: missing, but needed for sslkey (got "key.pem")`,

		`{"interval": 1, "port": 1, "sslkey": "no.pem", "sslcert": "cert.pem"}`: `sslkey no.pem: no such file or directory`,
		`{"interval": 1, "port": 1, "sslkey": "key.pem", "sslcert": "key.pem"}`: `sslkey key.pem with sslcert key.pem: ` +
			`failed to find certificate PEM data in certificate input, but did find a private key; ` +
			`PEM inputs may have been switched`,
		`{"interval": 1, "port": 1, "sslkey": "encrypted.pem", "sslcert": "cert.pem"}`: `sslkey encrypted.pem: the key is encrypted; ` +
			`decrypt it into another file, and name that one: openssl pkey -in encrypted.pem -out decrypted.pem`,
		`{"interval": 1, "port": 1, "sslkey": "key.pem", "sslcert": "cert.pem", "sslca": "text.pem"}`: `sslca text.pem: ` +
			`the file holds no certificate in PEM`,
	} {
		status, stdout, stderr := runCheck(t, folder, text)
		want = rootsCheck("config.json") + "pixel-ping: config.json: " + want + "\n"
		if status != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q, want 1, none and %q",
				text, status, stdout, stderr, want)
		}
	}
}

func TestCheckAccepts(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for text, warning := range map[string]string{
		// A check does not listen, so the port may be taken: by the daemon, mostly.
		`{"interval": 1, "host": "127.0.0.1", "port": ` + port + `}`:             "",
		`{"interval": 1, "port": "./socket", "endpoint": "http://h"}`:            "",
		`{"interval": 1, "port": 0, "sslkey": "key.pem", "sslcert": "cert.pem"}`: "",
		`{"interval": 1}`: `port: missing; the daemon needs a socket of systemd's, ` +
			`which a check does not see`,
		`{"interval": 1, "port": 0, "portt": 1}`:                   `unknown setting "portt" is ignored`,
		`{"interval": 1, "port": 1, "journal": "made-by-a-start"}`: "",
		`{"interval": 1, "port": 1, "journal": "."}`:               "",
		`{"interval": 1, "port": 1, "secret": ""}`: `secret: it is empty, so the application cannot tell the daemon from ` +
			`others; remove the setting if that is meant`,
		`{"interval": 1, "port": 1, "secret": "caf` + "\xe9" + `"}`: `secret: a character is not UTF-8, and U+FFFD takes its ` +
			`place; save the file as UTF-8`,
		`{"interval": 1, "port": "./socket", "host": "localhost"}`: `host "localhost" is ignored, ` +
			`since port is the path of a socket`,
		`{"interval": 1, "port": 0, "interval": 2, "host": "name.that.is.invalid"}`: `setting "interval" is there more than once; ` +
			`the last value counts`,
	} {
		want := rootsCheck("config.json")
		if warning != "" {
			want += "pixel-ping: config.json: " + warning + "\n"
		}
		status, stdout, stderr := runCheck(t, folder, text)
		if status != 0 || stdout != "config.json: ok\n" || stderr != want {
			t.Errorf("%s: exit status %d, stdout %q, stderr %q, want 0, that it is ok, and %q",
				text, status, stdout, stderr, want)
		}
	}
	for _, name := range []string{"socket", "made-by-a-start"} {
		if _, err := os.Lstat(filepath.Join(folder, name)); err == nil {
			t.Errorf("a check has made the %s", name)
		}
	}
}

// A check of a journal that is in use takes no lock, and is well.
func TestCheckBesideADaemon(t *testing.T) {
	t.Parallel()
	values := map[string]any{"journal": t.TempDir(), "port": rig.FreePort(t)}
	start(t, values)
	output := rig.NewOutput()
	if status := rig.Start(t, command("--check", settings(t, values)), output, output).Wait(t); status != 0 {
		t.Errorf("exit status %d, %s", status, output)
	}
}

// TestSocket makes a hit over a Unix socket, which is gone after the end.
func TestSocket(t *testing.T) {
	app := newApplication(t)
	folder, err := os.MkdirTemp("", "socket") // The path of a socket has to be short.
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	d := start(t, map[string]any{"host": "", "port": path, "endpoint": app.URL})
	if want := "http://unix:" + path + ":/pixel.gif"; d.url != want {
		t.Errorf("announced %s, want %s", d.url, want)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	answer, err := client.Get("http://localhost/pixel.gif?key=a")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 {
		t.Errorf("status %d", answer.StatusCode)
	}
	second := refused(t, 1, map[string]any{"host": "", "port": path})
	if want := "port: cannot listen on " + path + ": address already in use"; second != want {
		t.Errorf("a second daemon says %q, want %q", second, want)
	}
	d.Signal(t, os.Interrupt)
	if status := d.Wait(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	app.expect(t, "json=%7B%22a%22%3A1%7D")
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after the end there is still a socket (error %v)", err)
	}
}
