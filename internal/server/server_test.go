package server

import (
	"crypto/tls"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// A panic costs the request that met it, and one line of the log.
func TestPanic(t *testing.T) {
	folder := t.TempDir()
	roots := rig.WriteCertificate(t, folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for scheme, get := range map[string]func(*tls.ClientHelloInfo) (*tls.Certificate, error){
		"http":  nil,
		"https": func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil },
	} {
		stderr := rig.NewOutput()
		s := New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("this cannot be")
			}
		}), get, 0, stderr)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(listener)
		defer s.Stop(t.Context())
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport}
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
