// Package metrics tells Prometheus what the daemon counts, on a listener of its
// own. It reads counters that the parts of the daemon keep anyway, so nothing is
// done at a hit.
package metrics

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"pixel-ping/internal/stats"
)

// Path is the only path that is served.
const Path = "/metrics"

// Handler answers GET and HEAD requests for Path in Prometheus' text format, version
// 0.0.4, and all other requests with 404. Its functions may be called by many goroutines
// at once.
type Handler struct {
	Version  string           // the daemon's
	Stats    func() stats.All // what the daemon counts
	NotAfter func() time.Time // when the served certificate expires; zero if there is none
}

// ServeHTTP implements http.Handler.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != Path || r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	var p page
	p.daemon(h.Stats())
	if notAfter := h.NotAfter(); !notAfter.IsZero() {
		p.seconds("pixel_ping_certificate_not_after_timestamp_seconds", "When the served certificate expires.",
			notAfter.UnixMilli())
	}
	p.family("build_info", "gauge", "Always 1; the labels say what runs.")
	fmt.Fprintf(&p, "pixel_ping_build_info{version=%s,revision=%s,goversion=%s} 1\n",
		quote(h.Version), quote(revision()), quote(goVersion()))
	p.process(readProcess())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(p.Bytes())
}

// A page is the text of an answer.
type page struct{ bytes.Buffer }

// daemon appends what the parts of the daemon count.
func (p *page) daemon(s stats.All) {
	p.metric("hits_total", "counter", "Hits that were counted.", s.Recorded)
	p.metric("hits_refused_total", "counter", "Hits of new keys that were not counted: no room (maxmemory).", s.Refused)
	p.metric("pending_hits", "gauge", "Hits that are held and not delivered yet.", s.Pending)
	p.metric("pending_keys", "gauge", "Keys that are held. One that is hit again during a flush counts twice.", s.Keys)
	p.metric("refused_by_application_hits", "gauge",
		"Hits of keys that the application refuses, which are held apart and sent again each hour.", s.Aside)
	p.metric("refused_by_application_hits_total", "counter",
		"Hits of such keys that were dropped, since they had no room.", s.Dropped)
	p.family("flushes_total", "counter", "Flushes, empty ones included. Delivered: everything was accepted or set aside.")
	p.sample("flushes_total", "result", "delivered", s.Delivered)
	p.sample("flushes_total", "result", "failed", s.Failed)
	p.metric("delivered_hits_total", "counter", "Hits that the application has accepted.", s.DeliveredHits)
	var last int64
	if !s.LastDelivery.IsZero() {
		last = s.LastDelivery.UnixMilli()
	}
	p.seconds("pixel_ping_last_delivery_timestamp_seconds", "When the last flush was delivered, 0 before the first.", last)
	p.metric("in_doubt_hits", "gauge", "Pending hits that the application may have saved: it has not answered.", s.InDoubt)
	p.metric("connections", "gauge", "Connections of visitors that are open.", s.Open)
	p.family("connections_closed_total", "counter", "Connections of visitors that the daemon has closed, by reason.")
	p.sample("connections_closed_total", "reason", "idle", s.Idle)
	p.sample("connections_closed_total", "reason", "crowded", s.Crowded)
	p.sample("connections_closed_total", "reason", "slow", s.Slow)
	p.metric("handshakes_failed_total", "counter", "TLS handshakes of visitors that failed.", s.FailedHandshakes)
}

// process appends what the system says of the process. Prometheus' own clients use
// the same names, and leave out what a system does not tell.
func (p *page) process(of process) {
	p.seconds("process_start_time_seconds", "When the process was started.", of.started.UnixMilli())
	for _, m := range []struct {
		name, help string
		value      int64
	}{
		{"process_resident_memory_bytes", "Memory that is resident.", of.resident},
		{"process_open_fds", "File descriptors that are open.", of.descriptors},
	} {
		if m.value > 0 {
			fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s gauge\n%s %d\n", m.name, m.help, m.name, m.name, m.value)
		}
	}
}

// family begins the samples of a metric.
func (p *page) family(name, kind, help string) {
	fmt.Fprintf(p, "# HELP pixel_ping_%s %s\n# TYPE pixel_ping_%s %s\n", name, help, name, kind)
}

// sample appends a sample with a label.
func (p *page) sample(name, label, is string, value int64) {
	fmt.Fprintf(p, "pixel_ping_%s{%s=%s} %d\n", name, label, quote(is), value)
}

// metric appends a metric that has one sample.
func (p *page) metric(name, kind, help string, value int64) {
	p.family(name, kind, help)
	fmt.Fprintf(p, "pixel_ping_%s %d\n", name, value)
}

// seconds appends a metric that is a time: milliseconds since 1970, as seconds.
func (p *page) seconds(name, help string, milliseconds int64) {
	value := strconv.FormatFloat(float64(milliseconds)/float64(time.Second/time.Millisecond), 'f', -1, 64)
	fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s gauge\n%s %s\n", name, help, name, name, value)
}

// quote returns the value of a label as the format has it.
func quote(value string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}
