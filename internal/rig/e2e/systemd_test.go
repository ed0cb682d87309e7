//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// systemd accepts the unit and its drop-in for a certificate without a warning, and
// rates the exposure of the daemon as low.
func TestSystemd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	unit := filepath.Join(folder, "pixel-ping.service")
	for name, to := range map[string]string{
		"pixel-ping.service": unit,
		"certificate.conf":   filepath.Join(unit+".d", "certificate.conf"),
	} {
		file, err := os.ReadFile("../../../testdata/recipes/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(file)
		if name == "pixel-ping.service" {
			const installed = "\nExecStart=/usr/local/bin/pixel-ping "
			if strings.Count(text, installed) != 1 {
				t.Fatalf("%s does not contain %q once", name, installed)
			}
			// systemd-analyze requires that the program exists.
			text = strings.Replace(text, installed, "\nExecStart="+rig.Binary+" ", 1)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verified, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput()
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
