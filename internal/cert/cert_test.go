package cert

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An identity is a certificate with its key.
type identity struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issue makes a certificate that is signed by issuer, or by itself if that is
// nil.
func issue(t *testing.T, name string, issuer *identity) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	signer := &identity{template, key}
	if issuer != nil {
		signer = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, &key.PublicKey, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{certificate, key}
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func certificates(of ...*identity) string {
	var text strings.Builder
	for _, id := range of {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: id.certificate.Raw})
	}
	return text.String()
}

func key(t *testing.T, of *identity) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(of.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestChain(t *testing.T) {
	root := issue(t, "root", nil)
	upper := issue(t, "upper", root)
	lower := issue(t, "lower", upper)
	leaf := issue(t, "leaf", lower)
	other := issue(t, "other", root)
	for name, test := range map[string]struct {
		cert string
		ca   string
		want []*identity
	}{
		"alone":            {certificates(leaf), "", []*identity{leaf}},
		"completed":        {certificates(leaf), certificates(root, upper, other, lower), []*identity{leaf, lower, upper}},
		"gap":              {certificates(leaf), certificates(upper, root), []*identity{leaf}},
		"complete already": {certificates(leaf, lower), certificates(lower, upper), []*identity{leaf, lower}},
	} {
		t.Run(name, func(t *testing.T) {
			ca := ""
			if test.ca != "" {
				ca = write(t, "ca.pem", test.ca)
			}
			loaded, err := Load(write(t, "key.pem", key(t, leaf)), write(t, "cert.pem", test.cert), ca)
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
				want = append(want, id.certificate.Subject.CommonName)
			}
			if !slices.Equal(names, want) {
				t.Errorf("serves %q, want %q", names, want)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	id, other := issue(t, "a", nil), issue(t, "b", nil)
	good, goodKey := write(t, "cert.pem", certificates(id)), write(t, "key.pem", key(t, id))
	wrongKey := write(t, "wrong.pem", key(t, other))
	empty := write(t, "empty.pem", "")
	block, _ := pem.Decode([]byte(key(t, id)))
	block.Type = "ENCRYPTED PRIVATE KEY"
	newer := write(t, "newer.pem", string(pem.EncodeToMemory(block)))
	block.Type = "EC PRIVATE KEY"
	block.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{0}} // OpenSSL writes them before the key.
	older := write(t, "older.pem", string(pem.EncodeToMemory(parameters))+string(pem.EncodeToMemory(block)))
	const encrypted = ": the key is encrypted; decrypt it: openssl pkey -in encrypted.pem -out key.pem"
	for _, test := range []struct{ key, cert, ca, want string }{
		{"no.pem", good, "", "sslkey no.pem: no such file or directory"},
		{goodKey, "no.pem", "", "sslcert no.pem: no such file or directory"},
		{goodKey, good, "no.pem", "sslca no.pem: no such file or directory"},
		{goodKey, os.TempDir(), "", "sslcert " + os.TempDir() + ": is a directory"},
		{wrongKey, good, "", "sslkey " + wrongKey + " with sslcert " + good + ": private key does not match public key"},
		{goodKey, empty, "",
			"sslkey " + goodKey + " with sslcert " + empty + ": failed to find any PEM data in certificate input"},
		{empty, good, "", "sslkey " + empty + " with sslcert " + good + ": failed to find any PEM data in key input"},
		{newer, good, "", "sslkey " + newer + encrypted},
		{older, good, "", "sslkey " + older + encrypted},
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
	first, second, root := issue(t, "first", nil), issue(t, "second", nil), issue(t, "root", nil)
	keyFile, certFile := write(t, "key.pem", key(t, first)), write(t, "cert.pem", certificates(first))
	caFile := write(t, "ca.pem", certificates(root))
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
		replace(t, keyFile, key(t, second))
		<-time.After(checkInterval)
		if got := served(c); got != "first" || len(warnings) != 0 {
			t.Errorf("with half of a renewal %s is served, there are %d warnings", got, len(warnings))
		}
		replace(t, certFile, certificates(second))
		<-time.After(10 * time.Second)
		if got := served(c); got != "second" || len(warnings) != 0 {
			t.Errorf("after a renewal %s is served, there are %d warnings", got, len(warnings))
		}

		// There is one warning of each kind of files that do not load.
		for i, broken := range []func(){
			func() { replace(t, certFile, certificates(first)) },
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
		third := issue(t, "third", nil)
		replace(t, keyFile, key(t, third))
		if err := os.Symlink(write(t, "third.pem", certificates(third)), certFile); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		if got := served(c); got != "third" {
			t.Errorf("after a renewal %s is served", got)
		}
	})
}
