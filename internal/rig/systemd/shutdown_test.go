//go:build linux

package systemd

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A reboot and a poweroff deliver every hit, wherever the application is.
func TestShutdown(t *testing.T) {
	t.Parallel()
	for _, place := range []struct {
		name  string
		setup func(t *testing.T, m *machine) (endpoint string, received func(t *testing.T) int64)
	}{
		{"the application is on another machine", elsewhere},
		{"the application is on the same machine", sameMachine},
		{"the application is on another machine, and the resolver on this one", withResolver},
	} {
		t.Run(place.name, func(t *testing.T) {
			t.Parallel()
			m := newService(t)
			endpoint, received := place.setup(t, m)
			m.configure(t, map[string]any{"endpoint": endpoint})
			m.run(t, "systemctl daemon-reload; systemctl enable --now pixel-ping")
			for _, how := range []string{"reboot", "poweroff"} {
				t.Run(how, func(t *testing.T) {
					m.waitActive(t)
					before := received(t)
					m.hit(t, "a", "b", "c")
					defer m.halfRequest(t).Close()
					m.down(t, how)
					const last = "journalctl --directory=/var/log/journal -o cat -n "
					if got := received(t) - before; got != 3 {
						t.Errorf("%d hits are delivered, want 3. The journal ends with:\n%s", got, m.offline(t, last+"60"))
					}
					if said := m.offline(t, last+"20 -u pixel-ping"); strings.Contains(said, "not delivered") {
						t.Errorf("the daemon does not know that they are:\n%s", said)
					}
				})
				m.boot(t)
			}
		})
	}
}

// halfRequest begins a request from outside and returns its connection. A stop waits for
// the rest, and delivers the counts a second or two later than it would: by then what
// systemd does not stop after the daemon is gone.
func (m *machine) halfRequest(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", m.address+":9187")
	if err == nil {
		_, err = io.WriteString(conn, "GET /pixel.gif HTTP/1.1\r\n")
	}
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// sum returns a function that returns how many hits the application has received.
func (a application) sum() func(t *testing.T) int64 {
	var all int64
	return func(t *testing.T) int64 {
		t.Helper()
		for _, n := range a.received(t) {
			all += n
		}
		return all
	}
}

func elsewhere(t *testing.T, m *machine) (string, func(t *testing.T) int64) {
	app := newApplication(t)
	return app.url(m), app.sum()
}

// sameMachine makes the receiver the unit of the recipe, with the drop-in that makes
// systemd stop the daemon before it.
func sameMachine(t *testing.T, m *machine) (string, func(t *testing.T) int64) {
	program, err := os.ReadFile(receiver)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "/usr/local/bin/receiver", string(program))
	m.run(t, "chmod 755 /usr/local/bin/receiver")
	m.write(t, "/etc/systemd/system/hits.service", `[Service]
ExecStart=/usr/local/bin/receiver -listen 127.0.0.1:9188 -secret ''
StandardOutput=append:/var/log/hits.log
[Install]
WantedBy=multi-user.target
`)
	m.addition(t, "application.conf", m.read(t, recipes+"/systemd/application.conf"))
	m.run(t, "systemctl daemon-reload; systemctl enable --now hits")
	// The totals begin again with each boot, and each boot has one flush.
	log := filepath.Join(m.folder, "changes/var/log/hits.log")
	return "http://127.0.0.1:9188/save_hits", func(t *testing.T) (all int64) {
		t.Helper()
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for _, total := range regexp.MustCompile(`"[abc]", (\d+) in all`).FindAllStringSubmatch(string(text), -1) {
			n, err := strconv.ParseInt(total[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			all += n
		}
		return all
	}
}

// withResolver makes dnsmasq the resolver of the machine. The name of the application
// is known to nobody else.
func withResolver(t *testing.T, m *machine) (string, func(t *testing.T) int64) {
	app := newApplication(t)
	const dnsmasq = "no-resolv\nlisten-address=127.0.0.1\nbind-interfaces\naddress=/application.test/%s\n"
	m.write(t, "/etc/dnsmasq.conf", fmt.Sprintf(dnsmasq, m.outside))
	m.write(t, "/etc/resolv.conf", "nameserver 127.0.0.1\n")
	m.run(t, "systemctl enable --now dnsmasq")
	return "http://" + net.JoinHostPort("application.test", app.port) + "/save_hits", app.sum()
}
