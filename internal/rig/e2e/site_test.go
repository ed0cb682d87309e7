//go:build unix

package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// pixelHost is the address of the pixel in the recipes of testdata/recipes/embed.
const pixelHost = "https://pixels.example.com"

// world is what sites share: a browser, and a certificate that the browser accepts
// for every name.
type world struct {
	browser     *browser
	folder      string // holds cert.pem and key.pem
	certificate tls.Certificate
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{folder: t.TempDir()}
	rig.WriteCertificate(t, w.folder)
	var err error
	w.certificate, err = tls.LoadX509KeyPair(filepath.Join(w.folder, "cert.pem"), filepath.Join(w.folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(w.certificate.Leaf.RawSubjectPublicKeyInfo)
	w.browser = startBrowser(t, base64.StdEncoding.EncodeToString(hash[:]))
	return w
}

// serve serves a site with this host name over HTTPS and returns its address.
func (w *world) serve(t *testing.T, host string, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{w.certificate}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the browser closes connections early
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", host, 1)
}

// recipes serves the files of testdata/recipes/embed. It replaces the address of the
// pixel, and adds one header.
func recipes(pixel, field, value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "recipes", "embed", filepath.Base(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r) // such as the icon that browsers request
			return
		}
		page := strings.ReplaceAll(string(text), pixelHost+"/", pixel+"/")
		w.Header().Set(field, value)
		http.ServeContent(w, r, r.URL.Path, time.Time{}, strings.NewReader(page))
	})
}

// site is a site whose pages are the recipes, and the daemon that counts its hits.
type site struct {
	*world
	pages string // address of the recipes
	pixel string // address of the pixel, without its path

	tap         *tap // passes requests to the daemon
	daemon      *rig.Daemon
	application *rig.Endpoint
	hits        map[string]int64 // hits that the application has received
	want        map[string]int64 // hits that it should have received
}

// newSite starts a site and the daemon of its pixel.
func (w *world) newSite(t *testing.T) *site {
	t.Helper()
	s := &site{world: w, application: rig.NewEndpoint(t), hits: make(map[string]int64)}
	s.daemon = rig.StartDaemon(t, map[string]any{
		"endpoint": "http://" + s.application.Address,
		"sslcert":  filepath.Join(w.folder, "cert.pem"), "sslkey": filepath.Join(w.folder, "key.pem"),
	})
	s.tap = newTap(t, w.certificate, s.daemon.Address)
	s.pixel = pixelHost + ":" + s.tap.port
	s.pages = w.serve(t, "www.example.org", recipes(s.pixel, "Referrer-Policy", "no-referrer"))
	t.Cleanup(func() {
		if !t.Failed() {
			s.check(t, s.want) // no hit has arrived since
			hits.browser.Add(sum(s.want))
		}
	})
	return s
}

// open opens a recipe in a new tab.
func (s *site) open(t *testing.T, page string) *tab {
	t.Helper()
	at := s.browser.newTab(t)
	at.open(t, s.pages+"/"+page)
	return at
}

// flush forces a flush and adds its counts to hits.
func (s *site) flush(t *testing.T) {
	t.Helper()
	s.daemon.Signal(t, syscall.SIGUSR2)
	for key, n := range rig.Counts[int64](t, s.application.Body(t)) {
		s.hits[key] += n
	}
}

// check waits until the application has received as many hits as want has, and ends
// the test unless they are the same. Want holds all hits since the start.
func (s *site) check(t *testing.T, want map[string]int64) {
	t.Helper()
	s.want = want
	limit := time.Now().Add(rig.Deadline)
	for s.flush(t); sum(s.hits) < sum(want) && time.Now().Before(limit); s.flush(t) {
		<-time.After(10 * time.Millisecond)
	}
	for key, n := range want {
		if s.hits[key] != n {
			t.Errorf("the application has %d hits of %q, want %d", s.hits[key], key, n)
		}
	}
	for key, n := range s.hits {
		if want[key] == 0 {
			t.Errorf("the application has %d hits of %q, want none", n, key)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// sum returns the sum of the counts.
func sum(counts map[string]int64) (n int64) {
	for count := range maps.Values(counts) {
		n += count
	}
	return n
}
