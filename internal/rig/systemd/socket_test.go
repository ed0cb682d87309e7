//go:build linux

package systemd

import (
	"fmt"
	"strings"
	"testing"
)

// With the socket unit, restarts under load refuse no connection, and each answered
// hit is delivered.
func TestSocket(t *testing.T) {
	t.Parallel()
	m := newService(t)
	for _, socket := range []struct{ network, unit, address string }{
		{"tcp", "", m.address + ":9187"},
		{"unix", "[Socket]\nListenStream=\nListenStream=/run/pixel-ping.sock\n", m.path("/run/pixel-ping.sock")},
	} {
		t.Run("restarts under load, "+socket.network, func(t *testing.T) {
			app := newApplication(t)
			m.configure(t, map[string]any{"endpoint": app.url(m)})
			m.write(t, "/etc/systemd/system/pixel-ping.socket.d/test.conf", socket.unit)
			m.run(t, "systemctl daemon-reload")
			m.follow(t, "systemd", "Restart without a refused connection")
			load := startLoad(t, socket.network, socket.address)
			for range 10 {
				load.more(t, 100)
				m.run(t, "systemctl restart pixel-ping")
			}
			load.more(t, 100)
			load.stop()
			m.run(t, "systemctl stop pixel-ping.socket pixel-ping")
			load.checkNoneRefused(t)
			load.check(t, app)
		})
	}
	t.Run("three sockets: ten starts, each serves", func(t *testing.T) {
		m.configure(t, map[string]any{})
		m.write(t, "/etc/systemd/system/pixel-ping.socket.d/test.conf", `[Socket]
ListenStream=
ListenStream=127.0.0.1:9187
ListenStream=[::1]:9187
ListenStream=/run/pixel-ping.sock
`)
		m.run(t, "systemctl daemon-reload; systemctl start pixel-ping.socket; systemctl start pixel-ping")
		for range 10 {
			m.run(t, "systemctl restart pixel-ping")
			for _, to := range []string{
				"http://127.0.0.1:9187", "http://[::1]:9187", "--unix-socket /run/pixel-ping.sock http://x",
			} {
				m.run(t, "curl -sSf -o /dev/null "+to+"/pixel.gif")
			}
		}
		m.run(t, "systemctl stop pixel-ping.socket pixel-ping")
	})
	t.Run("a port in the configuration is ignored, with a line", func(t *testing.T) {
		m.said(t, "^pixel-ping: .*port.* ignored")
	})
	t.Run("systemctl stop with the socket enabled", func(t *testing.T) {
		app := newApplication(t)
		m.configure(t, map[string]any{"endpoint": app.url(m)})
		m.run(t, "rm -r /etc/systemd/system/pixel-ping.socket.d; systemctl daemon-reload")
		m.run(t, "systemctl start pixel-ping.socket; systemctl start pixel-ping")
		if said := m.run(t, "systemctl stop pixel-ping"); !strings.Contains(said, "pixel-ping.socket") {
			t.Errorf("the stop does not name the socket:\n%s", said)
		}
		m.checkState(t, "inactive")
		m.hit(t, "a") // starts it
		m.checkState(t, "active")
		m.run(t, "systemctl stop pixel-ping.socket pixel-ping")
		m.checkState(t, "inactive")
		if got := app.received(t)["a"]; got != 1 {
			t.Errorf("%d hits are delivered, want 1", got)
		}
	})
	// The last one: for a minute after it, systemd starts nothing for a connection. By default these are two seconds, in
	// which a busy machine does not start a service 20 times.
	t.Run("a configuration that is refused, with the socket enabled", func(t *testing.T) {
		m.configure(t, map[string]any{"host": "localhost", "interval": "often"})
		m.write(t, "/etc/systemd/system/pixel-ping.socket.d/limit.conf", "[Socket]\nTriggerLimitIntervalSec=60\n")
		m.run(t, "systemctl daemon-reload; systemctl start pixel-ping.socket")
		m.command("curl", "-s", "-m", "60", "http://localhost:9187/pixel.gif").Run() // which systemd refuses in the end
		if err := waitFor(func() error {
			text, err := m.command("systemctl", "is-failed", "pixel-ping.socket").CombinedOutput()
			if err != nil {
				return fmt.Errorf("systemd does not give the socket up: it is %s", text)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		m.configure(t, map[string]any{"host": "localhost"})
		m.run(t, "systemctl restart pixel-ping; systemctl is-active pixel-ping.socket")
		m.hit(t, "a") // at an address that is not localhost's
	})
}
