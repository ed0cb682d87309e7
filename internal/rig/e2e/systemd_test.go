//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

var execStart = regexp.MustCompile(`(?m)^ExecStart=\S+`)

// systemd accepts the unit and its additions without a warning, and the unit takes
// rights away from the daemon.
func TestSystemd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	drops := filepath.Join(folder, "pixel-ping.service.d")
	if err := os.Mkdir(drops, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"systemd/pixel-ping.service": folder,
		"systemd/pixel-ping.socket":  folder,
		"systemd/application.conf":   drops,
		"systemd/quiet.conf":         drops,
		"journal/journal.conf":       drops,
	} {
		file, err := os.ReadFile("../../../testdata/recipes/" + name)
		if err != nil {
			t.Fatal(err)
		}
		// systemd-analyze verifies only a program that exists.
		text := execStart.ReplaceAllString(string(file), "ExecStart="+rig.Binary)
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	unit, socket := filepath.Join(folder, "pixel-ping.service"), filepath.Join(folder, "pixel-ping.socket")
	verified, err := exec.Command("systemd-analyze", "verify", unit, socket).CombinedOutput()
	if err != nil || len(verified) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, verified)
	}
	// The exposure is a number from 0 to 10. The threshold is ten times that number.
	security := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", unit)
	report, err := security.CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, report)
	}
	_, overall, _ := strings.Cut(string(report), "→ ")
	t.Log(strings.TrimSpace(overall))
}

// What the unit says without systemd-analyze noticing whether it is right: the daemon
// reads the file that people edit, and nothing of the unit runs as root or comes from a
// credential, which a container may not give.
func TestUnit(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../../testdata/recipes/systemd/pixel-ping.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := make(map[string][]string)
	for line := range strings.Lines(string(file)) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			settings[name] = append(settings[name], value)
		}
	}
	for name, want := range map[string]string{
		"ExecStart":                "/usr/local/bin/pixel-ping /etc/pixel-ping/config.json",
		"User":                     "pixel-ping",
		"RestartPreventExitStatus": "78",
		"StandardError":            "journal",
		"ExecStartPre":             "",
		"LoadCredential":           "",
		"DynamicUser":              "",
	} {
		if got := strings.Join(settings[name], " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	// At a shutdown the daemon stops before these.
	after := strings.Fields(strings.Join(settings["After"], " "))
	for _, name := range []string{
		"network-online.target", "nss-lookup.target", "nginx.service", "apache2.service", "php8.2-fpm.service",
		"postgresql.service", "mariadb.service", "mysql.service", "redis-server.service",
	} {
		if !slices.Contains(after, name) {
			t.Errorf("After= does not name %s", name)
		}
	}
}

// The group that the recipe for certbot makes can read the key of the one
// certificate that it names, and no other key.
func TestCertbotsOtherKeysStayUnreadable(t *testing.T) {
	t.Parallel()
	letsencrypt := t.TempDir()
	for _, name := range []string{"pixels.example.com", "other.example.com"} {
		for _, folder := range []string{"live", "archive"} {
			if err := os.MkdirAll(filepath.Join(letsencrypt, folder, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(letsencrypt, folder), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(letsencrypt, "archive", name, "privkey1.pem"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	readme, err := os.ReadFile("../../../testdata/recipes/systemd/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, session, _ := strings.Cut(string(readme), "# cd /etc/letsencrypt\n")
	session, _, found := strings.Cut(session, "# runuser")
	if !found {
		t.Fatal("the README has no session for certbot")
	}
	// Nobody but root may make a group, so that of the test takes its place.
	session = strings.ReplaceAll(strings.ReplaceAll(session, "pixel-ping-tls", strconv.Itoa(os.Getgid())), "# ", "")
	cmd := exec.Command("sh", "-e", "-c", session)
	cmd.Dir = letsencrypt
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for name, want := range map[string]os.FileMode{
		"live":    0o710, // the group may pass through, but not list it
		"archive": 0o710,
		"archive/pixels.example.com/privkey1.pem": 0o640,
		"archive/other.example.com/privkey1.pem":  0o600,
	} {
		info, err := os.Stat(filepath.Join(letsencrypt, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the mode %o, want %o", name, got, want)
		}
	}
}
