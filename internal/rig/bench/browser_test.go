//go:build unix

package bench

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// TestBrowser measures the CPU for a page in Chromium that makes some hits at once, over
// new connections. --disable-http2 makes the browser use HTTP/1.1 with the same nginx, so
// the two rows of nginx show what HTTP/2 saves or costs.
func TestBrowser(t *testing.T) {
	const pages = 300 // in a round, for each row and number of hits
	certificate := t.TempDir()
	rig.WriteCertificate(t, certificate)
	hits := []int{1, 2, 6, 12}
	var columns []string
	for _, n := range hits {
		columns = append(columns, fmt.Sprintf("%d hits, µs", n))
	}
	table := newTable("CPU for a page in Chromium", columns...)
	this, _ := start(t, "this", certificate, 1000)
	defer this.end(t)
	nginx, _ := start(t, nginxHTTP2, certificate, 10000)
	defer nginx.end(t)
	for range rounds(t) {
		for _, row := range []struct {
			name string
			*server
			flags []string
		}{{"this", this, nil}, {"nginx", nginx, []string{"--disable-http2"}}, {nginxHTTP2, nginx, nil}} {
			var figures []float64
			for _, n := range hits {
				before, _ := row.CPU(t)
				row.browse(t, pages, n, row.flags)
				after, _ := row.CPU(t)
				figures = append(figures, (after-before).Seconds()*1e6/pages)
			}
			table.add(row.name, figures...)
		}
	}
	table.print()
}

// script is what Chromium runs in TestBrowser. Each of its pages has a host name of its own, so
// the browser opens new connections.
const script = `<script>
(async () => {
	for (let page = 0; page < %d; page++)
		await Promise.all(Array.from({ length: %d }, (_, i) => new Promise((answered, failed) => {
			const image = new Image();
			[image.onload, image.onerror] = [answered, failed];
			image.src = "https://page" + page + ".example.com:%s/pixel.gif?key=" + i;
		})));
	return "done";
})().catch(() => "failed").then((result) => fetch("/" + result, { method: "POST" }));
</script>`

// browse lets a new Chromium show pages, one after the other, of which each makes hits.
func (s *server) browse(t *testing.T, pages, hits int, flags []string) {
	t.Helper()
	results := make(chan string, 1)
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			results <- r.URL.Path
			return
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, script, pages, hits, s.url[strings.LastIndex(s.url, ":")+1:])
	}))
	defer site.Close()
	profile := t.TempDir()
	cmd := exec.Command("chromium", append(flags, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--remote-debugging-port=0", "--user-data-dir="+profile, "--host-resolver-rules=MAP *.example.com 127.0.0.1",
		"--ignore-certificate-errors", site.URL)...)
	output := rig.NewOutput()
	browser := rig.StartGroup(t, cmd, output, output)
	defer func() {
		browser.Signal(t, syscall.SIGTERM)
		browser.Wait(t)
		browser.KillGroup()
	}()
	select {
	case result := <-results:
		if result != "/done" {
			t.Fatalf("a page has %s; Chromium says:\n%s", result[1:], output)
		}
	case <-time.After(time.Minute):
		t.Fatalf("Chromium does not finish; it says:\n%s", output)
	}
}
