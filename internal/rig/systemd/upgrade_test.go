//go:build linux

package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// repack makes a package of another version from that of this version. Change may
// change the files of the package, which are in folder.
func repack(t *testing.T, version string, change func(folder string)) (file string) {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "package")
	file = folder + ".deb"
	run := func(args ...string) {
		t.Helper()
		if text, err := exec.Command("dpkg-deb", args...).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb %q: %v\n%s", args, err, text)
		}
	}
	run("--raw-extract", deb(t), folder)
	control := filepath.Join(folder, "DEBIAN/control")
	text, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?m)^Version: .*$`).ReplaceAll(text, []byte("Version: "+version))
	if err := os.WriteFile(control, text, 0o644); err != nil {
		t.Fatal(err)
	}
	change(folder)
	run("--root-owner-group", "-Znone", "--build", folder, file)
	return file
}

// Versions that are lower and higher than that of any release.
const older, newer = "0~older", "99~newer"

func same(string) {}

// The package is upgraded under load, with a good and with a broken configuration,
// removed, purged and installed again.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	m, app := newMachine(t), newApplication(t)
	m.boot(t)
	m.install(t, repack(t, older, same))
	version := func() string { return m.run(t, "dpkg-query -W -f '${Version}' pixel-ping") }
	t.Run("an upgrade under load", func(t *testing.T) {
		m.configure(t, map[string]any{"endpoint": app.url(m)})
		m.run(t, "systemctl enable --now pixel-ping.socket; systemctl enable --now pixel-ping")
		before := m.property(t, "MainPID")
		load := startLoad(t, "tcp", m.address+":9187")
		load.more(t, 100)
		m.install(t, deb(t))
		load.more(t, 100)
		load.stop()
		m.checkState(t, "active")
		if m.property(t, "MainPID") == before || version() == older {
			t.Error("the service is the same process as before")
		}
		m.run(t, "systemctl disable --now pixel-ping.socket; systemctl restart pixel-ping")
		load.checkNoneRefused(t)
		load.check(t, app)
	})
	t.Run("an upgrade with a broken configuration", func(t *testing.T) {
		m.run(t, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x "+
			"-keyout /root/key.pem -out /root/cert.pem")
		before, good := m.property(t, "MainPID"), m.read(t, configPath)
		for _, broken := range []string{
			`{"port": `,
			// Root may read this key, and the service may not.
			strings.Replace(good, "{", `{"sslkey": "/root/key.pem", "sslcert": "/root/cert.pem", `, 1),
		} {
			m.hit(t, "held")
			m.write(t, configPath, broken)
			said := m.install(t, repack(t, newer, same))
			if version() != newer {
				t.Errorf("the version is %s", version())
			}
			if !strings.Contains(said, configPath+": ") || !strings.Contains(said, "systemctl restart pixel-ping") {
				t.Errorf("the package does not say what is wrong and what to do:\n%s", said)
			}
			m.checkState(t, "active")
			if m.property(t, "MainPID") != before {
				t.Error("the old daemon does not go on")
			}
			m.hit(t, "held")
		}
		m.write(t, configPath, good)
		m.run(t, "systemctl restart pixel-ping")
		if got := app.received(t)["held"]; got != 4 {
			t.Errorf("%d hits are delivered, want 4", got)
		}
	})
	t.Run("remove", func(t *testing.T) {
		m.configure(t, map[string]any{"endpoint": app.url(m), "journal": "/var/lib/pixel-ping"})
		m.follow(t, "journal", "Under systemd")
		m.hit(t, "last")
		m.run(t, "dpkg -r pixel-ping")
		if got := app.received(t)["last"]; got != 1 {
			t.Errorf("%d hits are delivered, want 1", got)
		}
		if m.exists("/usr/bin/pixel-ping") || !m.exists(configPath) {
			t.Error("the program should be removed, and the configuration kept")
		}
	})
	t.Run("install after remove", func(t *testing.T) {
		said := m.install(t, deb(t))
		if !regexp.MustCompile(`systemctl (start|enable --now) pixel-ping`).MatchString(said) {
			t.Errorf("the package does not say what to do:\n%s", said)
		}
		m.run(t, "systemctl start pixel-ping")
		m.hit(t, "again")
		m.run(t, "systemctl stop pixel-ping")
		if got := app.received(t)["again"]; got != 1 {
			t.Errorf("%d hits are delivered, want 1", got)
		}
	})
	t.Run("purge", func(t *testing.T) {
		m.purge(t)
	})
	t.Run("install after purge", func(t *testing.T) {
		if said := m.install(t, deb(t)); !strings.Contains(said, "Edit "+configPath) {
			t.Errorf("the installation does not say what to do next:\n%s", said)
		}
		m.checkState(t, "inactive")
		m.configure(t, map[string]any{"endpoint": app.url(m)})
		m.run(t, "systemctl start pixel-ping")
		m.hit(t, "new")
		m.run(t, "systemctl stop pixel-ping")
		if got := app.received(t)["new"]; got != 1 {
			t.Errorf("%d hits are delivered, want 1", got)
		}
	})
}

// The package of 1.1.0 had a user that systemd made for each start, and a
// configuration for root only. What its journal holds survives the upgrade.
func TestUpgradeFrom110(t *testing.T) {
	t.Parallel()
	m, app := newMachine(t), newApplication(t)
	m.boot(t)
	m.install(t, repack(t, "1.1.0~", func(folder string) {
		for name, to := range map[string]string{
			"postinst":           "DEBIAN/postinst",
			"prerm":              "DEBIAN/prerm",
			"postrm":             "DEBIAN/postrm",
			"pixel-ping.service": "usr/lib/systemd/system/pixel-ping.service",
		} {
			text, err := os.ReadFile(filepath.Join("testdata/1.1.0", name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, to), text, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}))
	m.addition(t, "journal.conf", "[Service]\nStateDirectory=pixel-ping\nStateDirectoryMode=0700\n")
	m.configure(t, map[string]any{"endpoint": app.url(m), "journal": "/var/lib/pixel-ping"})
	m.run(t, "chown root:root "+configPath+"; chmod 600 "+configPath)
	// Its socket did not start with the service.
	const wanted = "/etc/systemd/system/pixel-ping.service.wants/pixel-ping.socket"
	m.run(t, "systemctl enable pixel-ping.socket; rm "+wanted)
	m.run(t, "systemctl daemon-reload; systemctl start pixel-ping.socket; systemctl enable --now pixel-ping")
	app.refuse()
	m.hit(t, "held", "held")
	m.install(t, deb(t))
	app.accept()
	app.received(t) // and refused, at the stop and after the start
	m.checkState(t, "active")
	if got, want := m.fileMode(t, configPath), "root:pixel-ping 640"; got != want {
		t.Errorf("the configuration is %s, want %s", got, want)
	}
	if !m.exists(wanted) {
		t.Error("the socket does not start with the service")
	}
	m.said(t, "^pixel-ping: 2 hits of 1 key recovered from the journal$")
	m.hit(t, "new")
	m.run(t, "systemctl stop pixel-ping")
	if got := app.received(t); got["held"] != 2 || got["new"] != 1 {
		t.Errorf("the application receives %v", got)
	}
	m.purge(t)
}

// purge purges the package and checks that nothing is left but the user.
func (m *machine) purge(t *testing.T) {
	t.Helper()
	m.run(t, "rm -f /etc/systemd/system/pixel-ping.service.d/*; dpkg -P pixel-ping")
	if left := m.run(t, "find /etc /usr /var/lib -name '*pixel-ping*' ! -path '/var/lib/dpkg/*'"); left != "" {
		t.Errorf("these are left:\n%s", left)
	}
}
