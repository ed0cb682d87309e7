package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// The unit, with the addition for a certificate, is one that systemd has nothing
// to say about, and leaves the daemon little that it could do.
func TestSystemd(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	unit := filepath.Join(folder, "pixel-ping.service")
	for name, to := range map[string]string{"pixel-ping.service": unit, "certificate.conf": filepath.Join(unit+".d", "certificate.conf")} {
		file, err := os.ReadFile("../../../testdata/recipes/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		text := string(file)
		if name == "pixel-ping.service" {
			const installed = "\nExecStart=/usr/local/bin/pixel-ping "
			if strings.Count(text, installed) != 1 {
				t.Fatalf("%s does not have %q once", name, installed)
			}
			// Only a program that is there can be verified.
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
	// The exposure is from 0 to 10, and the threshold ten times that.
	report, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", unit).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, report)
	}
	_, overall, _ := strings.Cut(string(report), "→ ")
	t.Log(strings.TrimSpace(overall))
}
