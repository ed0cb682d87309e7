//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

const prometheusRecipe = "../../../testdata/recipes/prometheus/"

// promtool runs Prometheus' checker with an input, and fails the test unless it is
// content.
func promtool(t *testing.T, input string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Stdin = strings.NewReader(input)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, text)
	}
}

// A real Prometheus scrapes the daemon with the recipe. What it has then is what was
// hit, delivered and refused.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	received := rig.NewEndpoint(t)
	metrics := "127.0.0.1:" + rig.FreePort(t)
	d := rig.StartDaemon(t, map[string]any{
		"endpoint": "http://" + received.Address, "metrics": metrics, "maxmemory": 0.02,
	})
	folder := t.TempDir()
	address := "127.0.0.1:" + rig.FreePort(t)
	file, err := os.ReadFile(prometheusRecipe + "prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs(prometheusRecipe + "pixel-ping.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	for old, replacement := range map[string]string{"127.0.0.1:9188": metrics, "pixel-ping.rules.yml": rules} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("prometheus.yml does not have %q once", old)
		}
		text = strings.ReplaceAll(text, old, replacement)
	}
	text += "\nglobal:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n"
	config := filepath.Join(folder, "prometheus.yml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "config", config)
	output := rig.NewOutput()
	p := rig.Start(t, exec.Command("prometheus", "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(folder, "data"), "--web.listen-address="+address), output, output)
	p.WaitListening(t, address)

	d.Hit(t, "a", "a", "b")
	d.Flush(t)
	delivered := sum(rig.Counts[int64](t, received.Body(t)))
	received.SetAnswer(rig.Answer("HTTP/1.1 500 Internal Server Error\r\n\r\n"))
	long := strings.Repeat("x", 12000)
	d.Hit(t, "a", long, long+"refused") // the last one asks for a flush, which fails
	d.Stderr.WaitLine(t, 0, "--- flush failed")

	page := scrape(t, metrics)
	promtool(t, page, "check", "metrics")
	for query, want := range map[string]string{
		`up{job="pixel-ping"}`:                         "1",
		`pixel_ping_hits_total`:                        "5",
		`pixel_ping_hits_refused_total`:                "1",
		`pixel_ping_delivered_hits_total`:              fmt.Sprint(delivered),
		`pixel_ping_pending_hits`:                      "2",
		`pixel_ping_pending_keys`:                      "2",
		`pixel_ping_flushes_total{result="delivered"}`: "1",
		`pixel_ping_flushes_total{result="failed"}`:    "1",
		`pixel_ping_build_info`:                        "1",
		`process_open_fds > bool 3`:                    "1",
		// Alerts that fire.
		`ALERTS{alertname="PixelPingDeliversNothing"}`:                  "",
		`time() - pixel_ping_last_delivery_timestamp_seconds < bool 60`: "1",
	} {
		limit := time.Now().Add(rig.Deadline)
		for got := ask(t, address, query); got != want; got = ask(t, address, query) {
			if time.Now().After(limit) {
				t.Errorf("Prometheus has %q for %s, want %q; the page is:\n%s", got, query, want, page)
				break
			}
			<-time.After(100 * time.Millisecond)
		}
	}
	received.SetAnswer(rig.Answer("HTTP/1.1 204 No Content\r\n\r\n"))
	d.Stop(t)
}

// scrape returns the page of the daemon.
func scrape(t *testing.T, address string) string {
	t.Helper()
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// ask returns the value of a query in Prometheus, or "" if it has none.
func ask(t *testing.T, address, query string) string {
	t.Helper()
	answer, err := http.Get("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var result struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(answer.Body).Decode(&result); err != nil {
		t.Fatal(err)
	}
	if len(result.Data.Result) != 1 {
		return ""
	}
	return fmt.Sprint(result.Data.Result[0].Value[1])
}

// ruleTests holds the alerts of the recipe to what they promise. %s is their file.
// Time begins at 0.
const ruleTests = `
rule_files: ["%s"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      # The last delivery was in minute 2.
      - series: pixel_ping_last_delivery_timestamp_seconds{job="pixel-ping",instance="a"}
        values: "0 60 120x20"
      - series: process_start_time_seconds{job="pixel-ping",instance="a"}
        values: "0x20"
      # There is none, since the start in minute 3.
      - series: pixel_ping_last_delivery_timestamp_seconds{job="pixel-ping",instance="b"}
        values: "_ _ _ 0x20"
      - series: process_start_time_seconds{job="pixel-ping",instance="b"}
        values: "_ _ _ 180x20"
      # There is one each minute.
      - series: pixel_ping_last_delivery_timestamp_seconds{job="pixel-ping",instance="c"}
        values: "0+60x20"
      - series: process_start_time_seconds{job="pixel-ping",instance="c"}
        values: "0x20"
      # Each flush fails, since one batch is refused, but others are delivered.
      - series: pixel_ping_last_delivery_timestamp_seconds{job="pixel-ping",instance="d"}
        values: "0x20"
      - series: process_start_time_seconds{job="pixel-ping",instance="d"}
        values: "0x20"
      - series: pixel_ping_delivered_hits_total{job="pixel-ping",instance="d"}
        values: "0+5x20"
      # No hits come, and empty flushes are delivered.
      - series: pixel_ping_delivered_hits_total{job="pixel-ping",instance="c"}
        values: "7x20"
      # Other programs.
      - series: process_start_time_seconds{job="node",instance="a"}
        values: "0x20"
      - series: pixel_ping_hits_refused_total{job="pixel-ping",instance="a"}
        values: "7x20"
      - series: pixel_ping_hits_refused_total{job="pixel-ping",instance="b"}
        values: "0 0 0 9x20"
      # Keys are set aside in minute 2 and tried again in minute 4; others have no room.
      - series: pixel_ping_refused_by_application_hits{job="pixel-ping",instance="a"}
        values: "0 0 3 3 0x20"
      - series: pixel_ping_refused_by_application_hits_total{job="pixel-ping",instance="a"}
        values: "0x20"
      - series: pixel_ping_refused_by_application_hits{job="pixel-ping",instance="b"}
        values: "0x20"
      - series: pixel_ping_refused_by_application_hits_total{job="pixel-ping",instance="b"}
        values: "0 0 0 0 9x20"
      # One certificate expires in 14 days and 5 minutes, the other in 90 days.
      - series: pixel_ping_certificate_not_after_timestamp_seconds{job="pixel-ping",instance="a"}
        values: "1209900x20"
      - series: pixel_ping_certificate_not_after_timestamp_seconds{job="pixel-ping",instance="b"}
        values: "7776000x20"
    alert_rule_test:
      - eval_time: 5m
        alertname: PixelPingDeliversNothing
      - eval_time: 6m
        alertname: PixelPingDeliversNothing
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: a}
            exp_annotations: {summary: "a has delivered nothing for 4m 0s"}
      - eval_time: 7m
        alertname: PixelPingDeliversNothing
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: a}
            exp_annotations: {summary: "a has delivered nothing for 5m 0s"}
          - exp_labels: {job: pixel-ping, instance: b}
            exp_annotations: {summary: "b has delivered nothing for 4m 0s"}
      - eval_time: 2m
        alertname: PixelPingRefusesHits
      - eval_time: 5m
        alertname: PixelPingRefusesHits
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: b}
            exp_annotations: {summary: "b has no room for more keys: raise maxmemory, or see which keys come"}
      - eval_time: 15m
        alertname: PixelPingRefusesHits
      - eval_time: 1m
        alertname: PixelPingApplicationRefusesKeys
      - eval_time: 3m
        alertname: PixelPingApplicationRefusesKeys
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: a}
            exp_annotations: {summary: "a has keys that the application refuses; its log lists them"}
      - eval_time: 5m
        alertname: PixelPingApplicationRefusesKeys
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: b}
            exp_annotations: {summary: "b has keys that the application refuses; its log lists them"}
      - eval_time: 5m
        alertname: PixelPingCertificateExpires
      - eval_time: 6m
        alertname: PixelPingCertificateExpires
        exp_alerts:
          - exp_labels: {job: pixel-ping, instance: a}
            exp_annotations: {summary: "a has a certificate that expires in 13d 23h 59m 0s"}
`

func TestAlerts(t *testing.T) {
	t.Parallel()
	rules, err := filepath.Abs(prometheusRecipe + "pixel-ping.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "check", "rules", rules)
	tests := filepath.Join(t.TempDir(), "tests.yml")
	if err := os.WriteFile(tests, fmt.Appendf(nil, ruleTests, rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "", "test", "rules", tests)
}
