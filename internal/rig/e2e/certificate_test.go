//go:build unix

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// A certificate that expires is warned of by --check and at the start, and shows in the
// metrics. One with which nobody can connect is refused, and as a renewal not served.
func TestCertificateThatExpires(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	until := time.Now().Add(10 * 24 * time.Hour).Truncate(time.Second)
	write := func(curve elliptic.Curve) {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		rig.WriteSelfSigned(t, folder, key, x509.Certificate{NotBefore: time.Now(), NotAfter: until})
	}
	write(elliptic.P256())
	metrics := "127.0.0.1:" + rig.FreePort(t)
	settings := map[string]any{
		"host": "127.0.0.1", "port": rig.FreePort(t), "interval": 3600, "metrics": metrics,
		"sslkey": folder + "/key.pem", "sslcert": folder + "/cert.pem",
	}
	config := rig.WriteConfig(t, settings)
	warning := fmt.Sprintf("pixel-ping: %s: sslcert %s/cert.pem: the certificate expires on %s; renew it before\n",
		config, folder, until.UTC().Format("2006-01-02 15:04 UTC"))
	text, err := exec.Command(rig.Binary, "--check", config).CombinedOutput()
	if err != nil || !strings.Contains(string(text), warning) || !strings.HasSuffix(string(text), ": ok\n") {
		t.Errorf("--check says\n%s(error %v), want\n%s", text, err, warning)
	}
	output := rig.NewOutput()
	d := rig.Start(t, exec.Command(rig.Binary, config), rig.NewOutput(), output)
	d.Stdout.WaitLine(t, 0, "Serving metrics")
	output.WaitLine(t, 0, strings.TrimSuffix(warning, "\n"))
	page := scrape(t, metrics)
	promtool(t, page, "check", "metrics")
	want := fmt.Sprintf("\npixel_ping_certificate_not_after_timestamp_seconds %d\n", until.Unix())
	if !strings.Contains(page, want) {
		t.Errorf("the page does not have%s:\n%s", want, page)
	}

	write(elliptic.P224())
	refused := "sslkey " + folder + "/key.pem with sslcert " + folder + "/cert.pem: " +
		"no client can connect with this key: unsupported certificate curve (P-224); " +
		"use one on the curve P-256, or an RSA key of 2048 bits"
	prefix := "pixel-ping: " + config + ": "
	output.WaitLine(t, 0, prefix+refused+"; the old certificate is still served")
	for _, args := range [][]string{{"--check", config}, {config}} {
		text, err := exec.Command(rig.Binary, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(text), prefix+refused+"\n") || strings.Contains(string(text), "Serving") {
			t.Errorf("%q says\n%s(error %v), want\n%s", args, text, err, refused)
		}
	}
	text, err = exec.Command(rig.Binary, "--health", config).CombinedOutput()
	if err != nil {
		t.Errorf("with the old certificate the daemon is not healthy: %s", text)
	}
}

// A client that does not trust the certificate shows in the metrics, and not in the log.
func TestHandshakeThatFails(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	metrics := "127.0.0.1:" + rig.FreePort(t)
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{
		"endpoint": "http://" + received.Address, "metrics": metrics,
		"sslkey": folder + "/key.pem", "sslcert": folder + "/cert.pem",
	})
	if conn, err := tls.Dial("tcp", d.Address, &tls.Config{RootCAs: x509.NewCertPool()}); err == nil {
		conn.Close()
		t.Fatal("a client trusts the certificate")
	}
	const want = "\npixel_ping_handshakes_failed_total 1\n"
	limit := time.Now().Add(rig.Deadline)
	for ; !strings.Contains(scrape(t, metrics), want); <-time.After(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the page does not have%s:\n%s", want, scrape(t, metrics))
		}
	}
	d.Stop(t)
	if got := d.Stderr.String(); got != "" {
		t.Errorf("the log has:\n%s", got)
	}
}
