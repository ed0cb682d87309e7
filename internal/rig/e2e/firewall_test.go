//go:build unix

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// startFirewall starts nginx with ModSecurity and the OWASP core rules, as Debian has
// them. first is a rule before those. server returns the server that listens on an
// address. startFirewall returns the address.
func startFirewall(t *testing.T, first string, server func(address string) string) string {
	t.Helper()
	folder, address := t.TempDir(), "127.0.0.1:"+rig.FreePort(t)
	rules := fmt.Sprintf(`
Include /etc/nginx/modsecurity.conf
SecRuleEngine On
SecAuditEngine Off
SecTmpDir %[1]s
SecDataDir %[1]s
%[2]s
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
`, folder, first)
	if err := os.WriteFile(filepath.Join(folder, "rules.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.StartNginx(t, folder, fmt.Sprintf("modsecurity on;\nmodsecurity_rules_file %s/rules.conf;\n%s",
		folder, server(address)), address, "ngx_http_modsecurity_module.so")
	return address
}

// proxy returns a server of nginx that passes the path /save_hits on. directive is one
// of its location.
func proxy(endpoint, directive string) func(address string) string {
	return func(address string) string {
		return fmt.Sprintf(`server {
			listen %s;
			location = /save_hits {
				%s
				client_max_body_size 16m;
				proxy_pass %s;
			}
		}`, address, directive, strings.TrimSuffix(endpoint, "/save_hits"))
	}
}

// A firewall in front of an application refuses keys that look like attacks. The others
// arrive, now and later; the refused ones are in the log, and a stop is in order.
func TestFirewallRefusesKeys(t *testing.T) {
	bad := []string{
		"<script>alert(1)</script>", "1' OR '1'='1' -- ", "1 UNION SELECT password FROM users",
		"'; DROP TABLE hits; --", "../../../../etc/passwd", "() { :; }; /bin/cat /etc/passwd",
		"\"><img src=x onerror=alert(document.cookie)>", "${jndi:ldap://example.com/a}",
	}
	for _, journal := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal %v", journal), func(t *testing.T) {
			t.Parallel()
			app := newLedger(t, func(*ledger, http.ResponseWriter, *http.Request, int) bool { return true })
			endpoint := "http://" + startFirewall(t, "", proxy("http://"+app.address, "")) + "/save_hits"
			settings := map[string]any{"endpoint": endpoint, "secret": "s"}
			if journal {
				settings["journal"] = t.TempDir()
			}
			d := rig.StartDaemon(t, settings)
			want := make(map[string]int64)
			for n := range 2000 {
				key := fmt.Sprintf("article-%d", n)
				d.Hit(t, key)
				want[key]++
			}
			d.Hit(t, bad...)
			began := time.Now()
			flushes := flushUntil(t, d, 20, func() bool { return app.has(want) })
			t.Logf("the others have arrived after %d flushes and %v", flushes, time.Since(began).Round(time.Millisecond))
			refused := make(map[string]bool)
			var inBlock bool
			for line := range strings.Lines(d.Stdout.String()) {
				count, key, isCount := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
				switch {
				case line == "Refused by the application:\n":
					inBlock = true
				case !isCount:
					inBlock = false
				case inBlock:
					refused[key] = true
					if count != "1" {
						t.Errorf("the log says %q", line)
					}
				}
			}
			for _, key := range bad {
				if !refused[key] {
					t.Errorf("the log does not have %q under those that are refused: %v", key, refused)
				}
				delete(refused, key)
			}
			if len(refused) > 0 {
				t.Errorf("the log says that these are refused: %v", refused)
			}

			// From now on they hold nothing up.
			d.Hit(t, "article-1", bad[0], "later")
			want["article-1"]++
			want["later"]++
			d.Flush(t)
			if !app.has(want) {
				t.Errorf("%d hits are saved after the next flush, want %d", sum(app.counts), sum(want))
			}
			d.Hit(t, "article-2")
			want["article-2"]++
			d.Stop(t)
			if !app.has(want) {
				t.Errorf("%d hits are saved, want %d", sum(app.counts), sum(want))
			}
			hits.application.Add(sum(want))
		})
	}
}
