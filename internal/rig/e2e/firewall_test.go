//go:build unix

package e2e

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"pixel-ping/internal/rig"
)

// startFirewall starts nginx with ModSecurity and the OWASP core rules, as Debian has
// them, in front of an endpoint. directive is one of the endpoint's location. It returns
// the endpoint behind the firewall.
func startFirewall(t *testing.T, endpoint, directive string) string {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	folder, address := t.TempDir(), "127.0.0.1:"+rig.FreePort(t)
	rules := fmt.Sprintf(`
Include /etc/nginx/modsecurity.conf
SecRuleEngine On
SecAuditEngine Off
SecTmpDir %[1]s
SecDataDir %[1]s
Include /etc/modsecurity/crs/crs-setup.conf
Include /usr/share/modsecurity-crs/rules/*.conf
`, folder)
	if err := os.WriteFile(filepath.Join(folder, "rules.conf"), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.StartNginx(t, folder, fmt.Sprintf(`server {
		listen %s;
		modsecurity on;
		modsecurity_rules_file %s/rules.conf;
		location = %s {
			%s
			client_max_body_size 16m;
			proxy_pass http://%s;
		}
	}`, address, folder, to.Path, directive, to.Host), address, "ngx_http_modsecurity_module.so")
	return "http://" + address + to.Path
}
