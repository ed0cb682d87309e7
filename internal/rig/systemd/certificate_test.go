//go:build linux

package systemd

import (
	"crypto/tls"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

const letsencrypt = "/etc/letsencrypt"

// issue puts a certificate where certbot puts the nth one. Its key has the group and
// the mode that the one before has, as certbot does it; the first is for root.
func (m *machine) issue(t *testing.T, n int) *rig.Identity {
	t.Helper()
	id := rig.Issue(t, "pixels.example.com", nil)
	live, archive := letsencrypt+"/live/pixels.example.com", letsencrypt+"/archive/pixels.example.com"
	if n == 1 {
		m.run(t, fmt.Sprintf("install -d -m 700 %s/live %s/archive; install -d -m 755 %s %s",
			letsencrypt, letsencrypt, live, archive))
	}
	for name, text := range map[string]string{
		"privkey": id.KeyPEM(t), "fullchain": rig.CertificatesPEM(id), "cert": rig.CertificatesPEM(id), "chain": "",
	} {
		file := fmt.Sprintf("%s/%s%d.pem", archive, name, n)
		m.write(t, file, text)
		if name == "privkey" {
			m.run(t, "chmod 600 "+file)
			if n > 1 {
				before := fmt.Sprintf("%s/%s%d.pem", archive, name, n-1)
				m.run(t, fmt.Sprintf("chgrp --reference=%s %s; chmod --reference=%s %s", before, file, before, file))
			}
		}
		m.run(t, fmt.Sprintf("ln -sfn ../../archive/pixels.example.com/%s%d.pem %s/%s.pem", name, n, live, name))
	}
	return id
}

// served returns the serial number of the certificate that the daemon serves.
func (m *machine) served() (string, error) {
	conn, err := tls.Dial("tcp", m.address+":9187", &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// waitServed waits until the daemon serves a certificate.
func (m *machine) waitServed(t *testing.T, id *rig.Identity) {
	t.Helper()
	if err := waitFor(func() error {
		serial, err := m.served()
		if err == nil && serial != id.Certificate.SerialNumber.String() {
			err = fmt.Errorf("the certificate is another one:\n%s", m.journal(t))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// The certificate is one of certbot's, and the key is for root until the commands of
// the recipe have run.
func TestCertificate(t *testing.T) {
	t.Parallel()
	m, app := newService(t), newApplication(t)
	first := m.issue(t, 1)
	plain := map[string]any{"host": "localhost", "endpoint": app.url(m)}
	secure := map[string]any{
		"endpoint": app.url(m),
		"sslkey":   letsencrypt + "/live/pixels.example.com/privkey.pem",
		"sslcert":  letsencrypt + "/live/pixels.example.com/fullchain.pem",
	}
	const refused = "pixel-ping: .*" + letsencrypt + "/live/pixels.example.com/[a-z]*.pem: permission denied"
	const check = "runuser -u pixel-ping -- pixel-ping --check " + configPath
	t.Run("the check sees that the service may not read the key", func(t *testing.T) {
		m.configure(t, plain)
		m.run(t, "systemctl enable --now pixel-ping; "+check)
		m.configure(t, secure)
		if said := m.fail(t, check); !regexp.MustCompile(refused).MatchString(said) {
			t.Errorf("the check says:\n%s", said)
		}
		m.checkState(t, "active")
		if said := m.run(t, "pixel-ping --check "+configPath+" 2>&1"); strings.Count(said, "\n") != 2 ||
			!strings.Contains(said, "runuser -u pixel-ping") {
			t.Errorf("the check as root should say ok, and that the service may see less:\n%s", said)
		}
	})
	t.Run("a key that the service may not read", func(t *testing.T) {
		m.fail(t, "systemctl restart pixel-ping")
		m.checkRefused(t, refused)
	})
	t.Run("a certificate of certbot", func(t *testing.T) {
		m.follow(t, "systemd", "Certificates of certbot")
		m.run(t, check)
		m.checkState(t, "active")
		m.waitServed(t, first)
		const want = "root:pixel-ping-tls 640"
		if got := m.fileMode(t, letsencrypt+"/archive/pixels.example.com/privkey1.pem"); got != want {
			t.Errorf("the key is %s, want %s", got, want)
		}
	})
	t.Run("its renewal", func(t *testing.T) { m.waitServed(t, m.issue(t, 2)) })
	t.Run("a renewed key that the service may not read", func(t *testing.T) {
		second, err := m.served()
		if err != nil {
			t.Fatal(err)
		}
		m.run(t, fmt.Sprintf("chmod 600 %s/archive/pixels.example.com/privkey2.pem", letsencrypt))
		third := m.issue(t, 3)
		m.said(t, refused)
		if now, err := m.served(); err != nil || now != second {
			t.Errorf("the daemon does not serve the certificate that it has (error %v)", err)
		}
		m.run(t, fmt.Sprintf("chmod 640 %s/archive/pixels.example.com/privkey3.pem", letsencrypt))
		m.waitServed(t, third)
	})
	t.Run("localhost: ten starts with TLS, both addresses", func(t *testing.T) {
		secure["host"] = "localhost"
		m.configure(t, secure)
		for range 10 {
			m.run(t, "systemctl restart pixel-ping")
			for _, address := range []string{"127.0.0.1", "[::1]"} {
				const get = "curl -sSf -o /dev/null --cacert %s --resolve localhost:9187:%s %s"
				m.run(t, fmt.Sprintf(get, secure["sslcert"], address, "https://localhost:9187/pixel.gif"))
			}
		}
	})
}
