//go:build linux

package systemd

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// The package is installed, its configuration edited, and the service used every day.
func TestService(t *testing.T) {
	t.Parallel()
	m, app := newMachine(t), newApplication(t)
	t.Run("dpkg -i where no systemd runs", func(t *testing.T) {
		if said := m.offline(t, "dpkg -i /root/pixel-ping.deb", deb(t)); !strings.Contains(said, "Edit "+configPath) {
			t.Errorf("the installation does not say what to do next:\n%s", said)
		}
	})
	m.boot(t)
	t.Run("installed and not started", func(t *testing.T) {
		m.checkState(t, "inactive")
		if got := m.property(t, "UnitFileState"); got != "disabled" {
			t.Errorf("the unit is %s, want disabled", got)
		}
	})
	t.Run("not started before the configuration was edited", func(t *testing.T) {
		m.fail(t, "systemctl enable --now pixel-ping")
		m.checkRefused(t, "pixel-ping: "+configPath+": endpoint: .*EDIT THIS")
	})
	t.Run("started after it", func(t *testing.T) {
		edited := regexp.MustCompile(`"EDIT THIS.*"`).ReplaceAllString(m.read(t, configPath), `"`+app.url(m)+`"`)
		m.write(t, configPath, edited)
		if said := m.run(t, "pixel-ping --check "+configPath+" 2>&1"); !strings.Contains(said, "secret: ") {
			t.Errorf("the check does not warn of the empty secret:\n%s", said)
		}
		m.write(t, configPath, strings.Replace(edited, `"secret":   ""`, `"secret":   "swordfish"`, 1))
		m.follow(t, "systemd", "Install")
		m.checkState(t, "active")
	})
	t.Run("others cannot read the secret", func(t *testing.T) {
		if got, want := m.fileMode(t, configPath), "root:pixel-ping 640"; got != want {
			t.Errorf("the configuration is %s, want %s", got, want)
		}
		m.fail(t, "runuser -u nobody -- cat "+configPath)
		text := m.run(t, "systemctl show pixel-ping; systemctl status pixel-ping")
		if strings.Contains(text, "swordfish") {
			t.Errorf("systemd shows the secret:\n%s", text)
		}
	})
	t.Run("localhost: ten starts, both addresses", func(t *testing.T) {
		for range 10 {
			m.run(t, "systemctl restart pixel-ping")
			for _, address := range []string{"127.0.0.1", "[::1]"} {
				m.run(t, fmt.Sprintf("curl -sSf -o /dev/null 'http://%s:9187/pixel.gif'", address))
			}
		}
	})
	t.Run("localhost without a hosts file", func(t *testing.T) {
		before := m.read(t, configPath)
		m.configure(t, map[string]any{"host": "localhost", "endpoint": "http://localhost:1/"})
		m.run(t, "mv /etc/hosts /root; systemctl restart pixel-ping; pixel-ping --health "+configPath)
		for _, address := range []string{"127.0.0.1", "[::1]"} {
			m.run(t, fmt.Sprintf("curl -sSf -o /dev/null 'http://%s:9187/pixel.gif'", address))
		}
		m.run(t, "systemctl kill -s USR2 pixel-ping")
		m.said(t, "ECONNREFUSED")
		m.write(t, configPath, before)
		m.run(t, "mv /root/hosts /etc; systemctl restart pixel-ping")
	})
	t.Run("SIGUSR2 flushes", func(t *testing.T) {
		m.run(t, "curl -sSf -o /dev/null 'http://localhost:9187/pixel.gif?key=a'; systemctl kill -s USR2 pixel-ping")
		if got, want := app.Body(t), "json=%7B%22a%22%3A1%7D&secret=swordfish"; got != want {
			t.Errorf("the application receives %s, want %s", got, want)
		}
	})
	t.Run("journalctl has the counts", func(t *testing.T) {
		m.said(t, "^1:\ta$")
		m.said(t, "^--- flushed ---$")
	})
	t.Run("systemctl status says how it is", func(t *testing.T) {
		m.run(t, "curl -sSf -o /dev/null 'http://localhost:9187/pixel.gif?key=b'; systemctl kill -s USR2 pixel-ping")
		app.Body(t)
		if err := waitFor(func() error {
			const status = `Status: "0 hits of 0 keys held; last flush delivered [0-9]+ m?s ago; [0-9]+ connections?"`
			if text := m.status(); !regexp.MustCompile(status).MatchString(text) {
				return fmt.Errorf("systemctl status says:\n%s", text)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	t.Run("reload-or-restart", func(t *testing.T) {
		before := m.property(t, "MainPID")
		m.run(t, "systemctl reload-or-restart pixel-ping")
		m.checkState(t, "active")
		if m.property(t, "MainPID") == before {
			t.Error("the service is the same process as before")
		}
	})
	t.Run("systemd-analyze security is at most 1.5", func(t *testing.T) {
		// The threshold is ten times that number.
		report := m.run(t, "systemd-analyze security --no-pager --threshold=15 pixel-ping")
		_, overall, _ := strings.Cut(report, "→ ")
		t.Log(strings.TrimSpace(overall))
	})
	t.Run("WatchdogSec= leaves it alone", func(t *testing.T) {
		m.addition(t, "watchdog.conf", "[Service]\nWatchdogSec=5s\n")
		m.run(t, "systemctl daemon-reload; systemctl restart pixel-ping")
		// The daemon answers for longer than that: each of its answers is later than the one before.
		answers := func() {
			t.Helper()
			last := m.property(t, "WatchdogTimestampMonotonic")
			for range 4 {
				if err := waitFor(func() error {
					now := m.property(t, "WatchdogTimestampMonotonic")
					if now == last {
						return fmt.Errorf("the daemon does not answer:\n%s", m.status())
					}
					last = now
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		answers()
		// Neither a flush that waits for the application is a hang, nor a stop that does.
		app.SetAnswer(hang())
		m.run(t, "curl -sSf -o /dev/null 'http://localhost:9187/pixel.gif?key=c'; systemctl kill -s USR2 pixel-ping")
		app.Body(t)
		answers()
		m.run(t, "systemctl stop pixel-ping")
		app.accept()
		if got := m.property(t, "Result"); got == "watchdog" {
			t.Errorf("the stop ends with %s", got)
		}
		if n := m.property(t, "NRestarts"); n != "0" {
			t.Errorf("systemd has restarted it %s times:\n%s", n, m.status())
		}
		m.run(t, "rm /etc/systemd/system/pixel-ping.service.d/watchdog.conf; systemctl daemon-reload")
		m.run(t, "systemctl start pixel-ping")
	})
	t.Run("a configuration that is refused", func(t *testing.T) {
		m.configure(t, map[string]any{"interval": "often"})
		m.fail(t, "systemctl restart pixel-ping")
		m.checkRefused(t, "pixel-ping: "+configPath+": interval: ")
	})
	t.Run("a port that is taken is tried again", func(t *testing.T) {
		m.configure(t, map[string]any{"endpoint": app.url(m)})
		m.run(t, "systemctl stop pixel-ping; systemd-run -q -u other -p Type=notify pixel-ping "+configPath)
		m.command("systemctl", "restart", "pixel-ping").Run()
		if err := waitFor(func() error {
			if n := m.property(t, "NRestarts"); n == "0" {
				return fmt.Errorf("systemd does not restart it:\n%s", m.status())
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		m.run(t, "systemctl stop other")
		m.waitActive(t)
	})
}

// The drop-in of containers of LXC, LXD and Incus takes credentials away, and some of
// the protections.
func TestContainersOfLXC(t *testing.T) {
	t.Parallel()
	m, app := newService(t), newApplication(t)
	m.write(t, "/run/systemd/system/service.d/zzz-lxc-service.conf", `[Service]
ProcSubset=all
ProtectProc=default
ProtectControlGroups=no
ProtectKernelTunables=no
NoNewPrivileges=no
LoadCredential=
`)
	m.configure(t, map[string]any{"endpoint": app.url(m)})
	m.run(t, "systemctl daemon-reload; systemctl enable --now pixel-ping")
	m.checkState(t, "active")
	m.hit(t, "a")
	m.run(t, "systemctl stop pixel-ping")
	if got := app.received(t)["a"]; got != 1 {
		t.Errorf("%d hits are delivered, want 1", got)
	}
}

// With quiet.conf the journal has errors and no counts. The daemon does not say that
// the log has what it loses.
func TestQuiet(t *testing.T) {
	t.Parallel()
	m, app := newService(t), newApplication(t)
	app.refuse()
	m.configure(t, map[string]any{"endpoint": app.url(m)})
	m.follow(t, "systemd", "Only errors in the journal")
	m.hit(t, "lost")
	m.run(t, "systemctl kill -s USR2 pixel-ping")
	app.Body(t)
	m.said(t, "500")
	m.run(t, "systemctl stop pixel-ping")
	m.said(t, "^pixel-ping: 1 hit of 1 key (was|were) not delivered")
	if text := m.journal(t); strings.Contains(text, "lost\n") || strings.Contains(text, "log has") {
		t.Errorf("the journal has:\n%s", text)
	}
}

// With the journal of the daemon, kill -9 loses nothing.
func TestKill(t *testing.T) {
	t.Parallel()
	m, app := newService(t), newApplication(t)
	m.configure(t, map[string]any{"endpoint": app.url(m), "journal": "/var/lib/pixel-ping"})
	const check = "runuser -u pixel-ping -- pixel-ping --check " + configPath
	if said := m.fail(t, check+" 2>&1"); !strings.Contains(said, "journal /var/lib/pixel-ping: ") {
		t.Errorf("without the directory, the check says:\n%s", said)
	}
	m.follow(t, "journal", "Under systemd")
	m.run(t, check) // beside the daemon, which uses it
	m.hit(t, "a", "a", "b")
	before := m.property(t, "MainPID")
	m.run(t, "systemctl kill -s KILL pixel-ping")
	m.waitActive(t)
	if m.property(t, "MainPID") == before {
		t.Error("the service is the same process as before")
	}
	m.said(t, "^pixel-ping: 3 hits of 2 keys recovered from the journal$")
	if got := rig.Counts[int64](t, app.Body(t)); got["a"] != 2 || got["b"] != 1 {
		t.Errorf("the application receives %v", got)
	}
	// Nobody else can read it.
	m.fail(t, "runuser -u nobody -- ls /var/lib/pixel-ping/")
}
