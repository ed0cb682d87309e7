package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// pixelHost is how the recipes of testdata/recipes/embed write where the pixel is.
const pixelHost = "https://pixels.example.com"

// world is what sites share: a browser, and a certificate that it accepts for
// any name.
type world struct {
	browser     *browser
	folder      string // with cert.pem and key.pem
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

// serve serves a site of this name over HTTPS, and returns its address.
func (w *world) serve(t *testing.T, host string, handler http.Handler) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{w.certificate}}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that a browser gives up
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", host, 1)
}

// recipes serves the files of testdata/recipes/embed with this address of the pixel, as
// a person would put it in, and with one more field in the header of each.
func recipes(t *testing.T, pixel, field, value string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "recipes", "embed", filepath.Base(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r) // as with the icon that browsers ask for
			return
		}
		page := strings.ReplaceAll(string(text), pixelHost+"/", pixel+"/")
		if page == string(text) {
			t.Errorf("%s does not have %s/", r.URL.Path, pixelHost)
		}
		w.Header().Set(field, value)
		http.ServeContent(w, r, r.URL.Path, time.Time{}, strings.NewReader(page))
	})
}

// site is a site with the recipes in its pages, and the daemon that it has its
// hits counted by.
type site struct {
	*world
	pages string // where the recipes are
	pixel string // where the pixel is, but for its path

	tap         *tap // before the daemon
	daemon      *rig.Process
	application *rig.Endpoint
	hits        map[string]int64 // that the application has received
	want        map[string]int64 // that it was to receive so far
}

// newSite starts a site whose pixel is served over one protocol: "http/1.1" or
// "h2".
func (w *world) newSite(t *testing.T, protocol string) *site {
	t.Helper()
	s := &site{world: w, application: rig.NewEndpoint(t), hits: make(map[string]int64)}
	port := rig.FreePort(t)
	config := rig.WriteConfig(t, map[string]any{
		"host": "127.0.0.1", "port": port, "interval": 3600, "endpoint": "http://" + s.application.Address,
		"sslcert": filepath.Join(w.folder, "cert.pem"), "sslkey": filepath.Join(w.folder, "key.pem"),
	})
	s.daemon = rig.Start(t, exec.Command(rig.Binary, config), rig.NewOutput(), rig.NewOutput())
	s.daemon.Stdout.WaitLine(t, 0, "Serving")
	s.tap = newTap(t, w.certificate, protocol, port)
	s.pixel = pixelHost + ":" + s.tap.port
	s.pages = w.serve(t, "www.example.org", recipes(t, s.pixel, "Content-Language", "en"))
	t.Cleanup(func() {
		if !t.Failed() {
			s.check(t, s.want) // nothing came late
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

// flush forces a flush, and adds to hits what the application receives.
func (s *site) flush(t *testing.T) {
	t.Helper()
	s.daemon.Signal(t, syscall.SIGUSR2)
	form, err := url.ParseQuery(s.application.Body(t))
	if err != nil {
		t.Fatal(err)
	}
	var counts map[string]int64
	if err := json.Unmarshal([]byte(form.Get("json")), &counts); err != nil {
		t.Fatal(err)
	}
	for key, n := range counts {
		s.hits[key] += n
	}
}

// check waits until the application has as many hits as these, and ends the test
// if it has not these. They are all since the start.
func (s *site) check(t *testing.T, want map[string]int64) {
	t.Helper()
	s.want = want
	limit := time.Now().Add(rig.Deadline)
	for s.flush(t); total(s.hits) < total(want) && time.Now().Before(limit); s.flush(t) {
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

func total(counts map[string]int64) (n int64) {
	for count := range maps.Values(counts) {
		n += count
	}
	return n
}
