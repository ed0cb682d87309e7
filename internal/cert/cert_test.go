package cert

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
)

func write(t *testing.T, file, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestChain(t *testing.T) {
	root := rig.Issue(t, "root", nil)
	upper := rig.Issue(t, "upper", root)
	lower := rig.Issue(t, "lower", upper)
	leaf := rig.Issue(t, "leaf", lower)
	other := rig.Issue(t, "other", root)
	text := rig.CertificatesPEM
	for name, test := range map[string]struct {
		cert string
		ca   string
		want []*rig.Identity
	}{
		"alone":            {text(leaf), "", []*rig.Identity{leaf}},
		"completed":        {text(leaf), text(root, upper, other, lower), []*rig.Identity{leaf, lower, upper}},
		"gap":              {text(leaf), text(upper, root), []*rig.Identity{leaf}},
		"complete already": {text(leaf, lower), text(lower, upper), []*rig.Identity{leaf, lower}},
	} {
		t.Run(name, func(t *testing.T) {
			ca := ""
			if test.ca != "" {
				ca = write(t, "ca.pem", test.ca)
			}
			loaded, err := Load(write(t, "key.pem", leaf.KeyPEM(t)), write(t, "cert.pem", test.cert), ca)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := loaded.Get(nil)
			var names, want []string
			for _, der := range got.Certificate {
				c, err := x509.ParseCertificate(der)
				if err != nil {
					t.Fatal(err)
				}
				names = append(names, c.Subject.CommonName)
			}
			for _, id := range test.want {
				want = append(want, id.Certificate.Subject.CommonName)
			}
			if !slices.Equal(names, want) {
				t.Errorf("serves %q, want %q", names, want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	id, other := rig.Issue(t, "a", nil), rig.Issue(t, "b", nil)
	good, goodKey := write(t, "cert.pem", rig.CertificatesPEM(id)), write(t, "key.pem", id.KeyPEM(t))
	wrongKey := write(t, "wrong.pem", other.KeyPEM(t))
	empty := write(t, "empty.pem", "")
	block, _ := pem.Decode([]byte(id.KeyPEM(t)))
	block.Type = "ENCRYPTED PRIVATE KEY"
	newer := write(t, "newer.pem", string(pem.EncodeToMemory(block)))
	block.Type = "EC PRIVATE KEY"
	block.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{0}} // OpenSSL writes them before the key.
	older := write(t, "older.pem", string(pem.EncodeToMemory(parameters))+string(pem.EncodeToMemory(block)))
	encrypted := func(key string) string {
		return "sslkey " + key + ": the key is encrypted; decrypt it into another file, and name that one: " +
			"openssl pkey -in " + key + " -out decrypted.pem"
	}
	for _, test := range []struct{ key, cert, ca, want string }{
		{"no.pem", good, "", "sslkey no.pem: no such file or directory"},
		{goodKey, "no.pem", "", "sslcert no.pem: no such file or directory"},
		{goodKey, good, "no.pem", "sslca no.pem: no such file or directory"},
		{goodKey, os.TempDir(), "", "sslcert " + os.TempDir() + ": is a directory"},
		{wrongKey, good, "", "sslkey " + wrongKey + " with sslcert " + good + ": private key does not match public key"},
		{goodKey, empty, "",
			"sslkey " + goodKey + " with sslcert " + empty + ": failed to find any PEM data in certificate input"},
		{empty, good, "", "sslkey " + empty + " with sslcert " + good + ": failed to find any PEM data in key input"},
		{newer, good, "", encrypted(newer)},
		{older, good, "", encrypted(older)},
		{goodKey, good, empty, "sslca " + empty + ": the file holds no certificate in PEM"},
	} {
		if _, err := Load(test.key, test.cert, test.ca); err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %s", err, test.want)
		}
	}
}

// served returns the name in the certificate that is served.
func served(c *Certificate) string {
	certificate, _ := c.Get(nil)
	return certificate.Leaf.Subject.CommonName
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRenewal(t *testing.T) {
	first, second, root := rig.Issue(t, "first", nil), rig.Issue(t, "second", nil), rig.Issue(t, "root", nil)
	keyFile, certFile := write(t, "key.pem", first.KeyPEM(t)), write(t, "cert.pem", rig.CertificatesPEM(first))
	caFile := write(t, "ca.pem", rig.CertificatesPEM(root))
	synctest.Test(t, func(t *testing.T) {
		c, err := Load(keyFile, certFile, caFile)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		warnings := make(chan error, 10)
		go c.Watch(ctx, func(err error) { warnings <- err })

		// The key comes first. There is no warning if the certificate follows soon.
		replace(t, keyFile, second.KeyPEM(t))
		<-time.After(checkInterval)
		if got := served(c); got != "first" || len(warnings) != 0 {
			t.Errorf("with half of a renewal %s is served, there are %d warnings", got, len(warnings))
		}
		replace(t, certFile, rig.CertificatesPEM(second))
		<-time.After(10 * time.Second)
		if got := served(c); got != "second" || len(warnings) != 0 {
			t.Errorf("after a renewal %s is served, there are %d warnings", got, len(warnings))
		}

		// There is one warning of each kind of files that do not load.
		for i, broken := range []func(){
			func() { replace(t, certFile, rig.CertificatesPEM(first)) },
			func() { replace(t, certFile, "") },
			func() { os.Remove(certFile) },
		} {
			broken()
			<-time.After(time.Minute)
			if got := served(c); got != "second" || len(warnings) != i+1 {
				t.Errorf("with broken files %s is served, there are %d warnings, want %d", got, len(warnings), i+1)
			}
		}
		want := "sslkey " + keyFile + " with sslcert " + certFile +
			": private key does not match public key; the old certificate is still served"
		if got := (<-warnings).Error(); got != want {
			t.Errorf("the warning is %q, want %q", got, want)
		}

		// A link that is swapped, as certbot does it, is a change as well.
		third := rig.Issue(t, "third", nil)
		replace(t, keyFile, third.KeyPEM(t))
		if err := os.Symlink(write(t, "third.pem", rig.CertificatesPEM(third)), certFile); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		if got := served(c); got != "third" {
			t.Errorf("after a renewal %s is served", got)
		}
	})
}
