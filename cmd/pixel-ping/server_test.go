package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/rig"
)

func TestAddressesAreBoundOnce(t *testing.T) {
	for names, want := range map[string]string{
		"127.0.0.1 ::1":                        "[127.0.0.1 ::1]",
		"127.0.0.1 127.0.0.1 ::ffff:127.0.0.1": "[127.0.0.1]",
		"127.0.0.1 0.0.0.0":                    "[0.0.0.0]",
		"::":                                   "[::]",
	} {
		var found []netip.Addr
		for name := range strings.FieldsSeq(names) {
			found = append(found, netip.MustParseAddr(name))
		}
		if got := fmt.Sprint(distinct(found)); got != want {
			t.Errorf("%s: %s is bound, want %s", names, got, want)
		}
	}
}

func TestFamilies(t *testing.T) {
	for host, want := range map[string]string{"0.0.0.0": "0.0.0.0:", "127.0.0.1": "127.0.0.1:", "": "[::]:", "::": "[::]:"} {
		listeners, err := listen(host, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := listeners[0].Addr().String(); len(listeners) != 1 || !strings.HasPrefix(got, want) {
			t.Errorf("host %q: %d listeners, the first on %s, want %s", host, len(listeners), got, want)
		}
		listeners[0].Close()
	}
}

func TestMemoryLimit(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	boundMemory(100 << 20)
	if got := debug.SetMemoryLimit(-1); got != 360<<20 {
		t.Errorf("the limit is %d MB, want 360", got>>20)
	}
	t.Setenv("GOMEMLIMIT", "1GiB")
	boundMemory(200 << 20)
	if got := debug.SetMemoryLimit(-1); got != 360<<20 {
		t.Errorf("the limit is %d MB, though it was set from outside", got>>20)
	}
}

func TestCollector(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	ballast = nil
	for _, outside := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(outside, "200")
		boundMemory(100 << 20)
		if percent := debug.SetGCPercent(100); percent != 100 || ballast != nil {
			t.Errorf("GOGC is %d and the ballast %d MB, though %s is set from outside", percent, len(ballast)>>20, outside)
		}
	}
	t.Setenv("GOMEMLIMIT", "")
	boundMemory(100 << 20)
	if percent := debug.SetGCPercent(100); percent != 50 || len(ballast) != 32<<20 {
		t.Errorf("GOGC is %d and the ballast %d MB, want 50 and 32", percent, len(ballast)>>20)
	}
}

// run ends with its context as with a signal: what is held is delivered.
func TestEndOfTheContext(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	t.Setenv("GOMEMLIMIT", "")
	app := newApplication(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout, stderr := rig.NewOutput(), rig.NewOutput()
	status := make(chan int, 1)
	config := settings(t, map[string]any{"endpoint": app.URL, "maxmemory": 50})
	go func() { status <- run(ctx, []string{config}, stdout, stderr) }()
	d := &process{url: strings.TrimPrefix(stdout.WaitLine(t, 0, "Serving"), "Serving the pixel at ")}
	d.hit(t, "key=a")
	if got := debug.SetMemoryLimit(-1); got != 260<<20 {
		t.Errorf("the limit of the memory is %d MB, want 260", got>>20)
	}
	cancel()
	app.expect(t, "json=%7B%22a%22%3A1%7D")
	if got := <-status; got != 0 {
		t.Errorf("exit status %d, want 0; it says:\n%s", got, stderr)
	}
}

// A panic costs the request that met it, and one line of the log.
func TestPanic(t *testing.T) {
	folder := t.TempDir()
	roots := rig.WriteCertificate(t, folder)
	certificate, err := cert.Load(filepath.Join(folder, "key.pem"), filepath.Join(folder, "cert.pem"), "")
	if err != nil {
		t.Fatal(err)
	}
	for scheme, certificate := range map[string]*cert.Certificate{"http": nil, "https": certificate} {
		stderr := rig.NewOutput()
		server := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("this cannot be")
			}
		}), certificate, stderr)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go serve(server, listener, new(connections))
		defer server.Close()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
		url := scheme + "://" + listener.Addr().String()
		if answer, err := client.Get(url + "/panic"); err == nil {
			answer.Body.Close()
			t.Errorf("%s: status %d, want none", scheme, answer.StatusCode)
		}
		if line := stderr.WaitLine(t, 0, "pixel-ping: http"); !strings.HasSuffix(line, ": this cannot be") {
			t.Errorf("%s: it says %q", scheme, line)
		}
		answer, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if got := stderr.String(); strings.Count(got, "\n") != 1 {
			t.Errorf("%s: it says:\n%s", scheme, got)
		}
	}
}
