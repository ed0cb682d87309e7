package server

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
)

func TestURL(t *testing.T) {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
	plain, secure := New(nil, nil, Limits{}, nil), New(nil, certificate, Limits{}, nil)
	for host, want := range map[string]string{
		"": "localhost", "0.0.0.0": "localhost", "::": "localhost",
		"::1": "[::1]", "127.0.0.1": "127.0.0.1", "pixels.example.com": "pixels.example.com",
	} {
		if got, want := plain.URL(host, newPipes(), "/p"), "http://"+want+":0/p"; got != want {
			t.Errorf("host %q: %s, want %s", host, got, want)
		}
		if got, want := secure.URL(host, newPipes(), "/p"), "https://"+want+":0/p"; got != want {
			t.Errorf("host %q: %s, want %s", host, got, want)
		}
	}
}

// failing is a listener that fails for good after it has failed for a moment.
type failing struct {
	pipes
	failures chan error
}

func (f failing) Accept() (net.Conn, error) { return nil, <-f.failures }

// shortage is an error that passes, as a lack of descriptors does.
type shortage struct{ error }

func (shortage) Timeout() bool   { return false }
func (shortage) Temporary() bool { return true }

// Serve goes on after an error that passes, which it logs, and returns an error that
// does not.
func TestListenerThatFails(t *testing.T) {
	for scheme, get := range map[string]func(*tls.ClientHelloInfo) (*tls.Certificate, error){
		"http":  nil,
		"https": func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			stderr, broken := rig.NewOutput(), errors.New("the network is gone")
			s := New(http.NotFoundHandler(), get, Limits{}, stderr)
			defer s.Stop(t.Context())
			f := failing{newPipes(), make(chan error, 10)}
			for range 5 {
				f.failures <- shortage{errors.New("too many open files")}
			}
			f.failures <- broken
			if err := s.Serve(f); err != broken {
				t.Errorf("%s: Serve returns %v, want %v", scheme, err, broken)
			}
			if got := stderr.String(); strings.Count(got, "too many open files") != 1 || strings.Count(got, "\n") != 1 {
				t.Errorf("%s: it says:\n%s\nwant one line for five failures within a second", scheme, got)
			}
		})
	}
}

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
		}), get, Limits{}, stderr)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(listener)
		defer s.Stop(t.Context())
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
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

// A key of 18,000 bytes counts: net/http adds 4 kB to the limit of a header. A longer
// header gets an answer, too, and counts nothing.
func TestLongKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := startPiped(t, Limits{}, io.Discard)
		for length, want := range map[int]int{15_000: 200, 18_000: 200, 20_480: 431} {
			conn := p.dial()
			go io.WriteString(conn, strings.Replace(hit, "key=a", "key="+strings.Repeat("x", length), 1))
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != want {
				t.Errorf("a key of %d bytes: %s, want %d", length, answer.Status, want)
			}
			conn.Close()
		}
		<-time.After(time.Second) // net/http waits before it closes a connection with a header half read
		if got := store.Stats().Pending; got != 2 {
			t.Errorf("%d hits are counted, want 2", got)
		}
	})
}
