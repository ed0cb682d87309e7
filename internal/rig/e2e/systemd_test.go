//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// systemd accepts the unit and its additions without a warning, and the unit takes
// rights away from the daemon.
func TestSystemd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	unit := filepath.Join(folder, "pixel-ping.service")
	for name, to := range map[string]string{
		"pixel-ping.service": unit,
		"pixel-ping.socket":  filepath.Join(folder, "pixel-ping.socket"),
		"certificate.conf":   filepath.Join(unit+".d", "certificate.conf"),
		"quiet.conf":         filepath.Join(unit+".d", "quiet.conf"),
	} {
		file, err := os.ReadFile("../../../testdata/recipes/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(file)
		if name == "pixel-ping.service" {
			// systemd-analyze verifies only a program that exists.
			const installed = "/usr/local/bin/pixel-ping "
			if strings.Count(text, installed) != 2 {
				t.Fatalf("%s does not contain %q twice", name, installed)
			}
			text = strings.ReplaceAll(text, installed, rig.Binary+" ")
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(folder, "pixel-ping.socket")
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

// The daemon is given the path of the configuration that people edit, so that its
// messages name that file. The file itself is for root: at its path the daemon
// finds the copy that LoadCredential makes.
func TestUnitNamesTheConfigurationThatPeopleEdit(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("../../../testdata/recipes/systemd/pixel-ping.service")
	if err != nil {
		t.Fatal(err)
	}
	settings := make(map[string]string)
	for line := range strings.Lines(string(file)) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), "="); found {
			settings[name] = value
		}
	}
	const path = "/etc/pixel-ping/config.json"
	for name, want := range map[string]string{
		"ExecStart":         "/usr/local/bin/pixel-ping " + path,
		"ExecStartPre":      "+/usr/local/bin/pixel-ping --check " + path,
		"LoadCredential":    "config.json:" + path,
		"BindReadOnlyPaths": "/run/credentials/%n/config.json:" + path,
	} {
		if settings[name] != want {
			t.Errorf("%s is %q, want %q", name, settings[name], want)
		}
	}
	// %d came with systemd 251, and the unit is for 247.
	if strings.Contains(string(file), "%d") {
		t.Error("the unit uses the specifier for the folder of credentials, which systemd 247 does not know")
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
	session, _, found := strings.Cut(session, "# systemctl")
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
