package cert

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	reversed := write(t, "reversed.pem", rig.CertificatesPEM(other, id))
	empty := write(t, "empty.pem", "")
	block, _ := pem.Decode([]byte(id.KeyPEM(t)))
	block.Type = "ENCRYPTED PRIVATE KEY"
	newer := write(t, "newer.pem", string(pem.EncodeToMemory(block)))
	block.Type = "EC PRIVATE KEY"
	block.Headers = map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{0}} // OpenSSL writes them before the key.
	older := write(t, "older.pem", string(pem.EncodeToMemory(parameters))+string(pem.EncodeToMemory(block)))
	spaced := write(t, "it's a key.pem", string(pem.EncodeToMemory(block)))
	encrypted := func(key, quoted string) string {
		return "sslkey " + key + ": the key is encrypted; decrypt it into another file, and name that one: " +
			"openssl pkey -in " + quoted + " -out decrypted.pem"
	}
	for _, test := range []struct{ key, cert, ca, want string }{
		{"no.pem", good, "", "sslkey no.pem: no such file or directory"},
		{goodKey, "no.pem", "", "sslcert no.pem: no such file or directory"},
		{goodKey, good, "no.pem", "sslca no.pem: no such file or directory"},
		{goodKey, os.TempDir(), "", "sslcert " + os.TempDir() + ": is a directory"},
		{wrongKey, good, "", "sslkey " + wrongKey + " with sslcert " + good + ": private key does not match public key"},
		{goodKey, reversed, "", "sslkey " + goodKey + " with sslcert " + reversed + ": private key does not match public key; " +
			"of several certificates in sslcert, the server's own has to be the first"},
		{goodKey, empty, "",
			"sslkey " + goodKey + " with sslcert " + empty + ": failed to find any PEM data in certificate input"},
		{empty, good, "", "sslkey " + empty + " with sslcert " + good + ": failed to find any PEM data in key input"},
		{newer, good, "", encrypted(newer, newer)},
		{older, good, "", encrypted(older, older)},
		{spaced, good, "", encrypted(spaced, "'"+strings.ReplaceAll(spaced, "'", `'\''`)+"'")},
		{goodKey, good, empty, "sslca " + empty + ": the file holds no certificate in PEM"},
	} {
		if _, err := Load(test.key, test.cert, test.ca); err == nil || err.Error() != test.want {
			t.Errorf("error %v, want %s", err, test.want)
		}
	}
}

// issue writes a certificate that signs itself, and its key, which may be of any kind.
func issue(t *testing.T, key crypto.Signer, from, until time.Time) (keyFile, certFile string) {
	t.Helper()
	folder := t.TempDir()
	rig.WriteSelfSigned(t, folder, key, x509.Certificate{NotBefore: from, NotAfter: until})
	return filepath.Join(folder, "key.pem"), filepath.Join(folder, "cert.pem")
}

// generate makes a key of a kind. Go makes RSA keys of less than 1024 bits only if
// GODEBUG allows it; the daemon runs without.
func generate(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch bits, _ := strings.CutPrefix(kind, "RSA "); kind {
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		size, _ := strconv.Atoi(bits)
		key, err = rsa.GenerateKey(rand.Reader, size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A key with which no handshake succeeds is refused. The name and the dates in the
// certificate do not matter.
func TestKeys(t *testing.T) {
	const advice = "; use one on the curve P-256, or an RSA key of 2048 bits"
	for kind, want := range map[string]string{
		"P-224":   "unsupported certificate curve (P-224)",
		"RSA 512": "certificate RSA key size too small for supported signature algorithms",
		"RSA 768": "failed to sign handshake: crypto/rsa: 768-bit keys are insecure " +
			"(see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)",
		"RSA 1024": "",
		"RSA 2048": "",
		"P-256":    "",
		"P-384":    "",
		"P-521":    "",
		"Ed25519":  "",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Setenv("GODEBUG", "rsa1024min=0")
			key, cert := issue(t, generate(t, kind), time.Unix(0, 0), time.Unix(1, 0))
			t.Setenv("GODEBUG", "")
			_, err := Load(key, cert, "")
			if want != "" {
				want = "sslkey " + key + " with sslcert " + cert + ": no client can connect with this key: " + want + advice
			}
			if err == nil && want != "" || err != nil && err.Error() != want {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
}

// Files in PEM that Node 20 reads are read here, too.
func TestPEM(t *testing.T) {
	const mark = "\uFEFF"
	id, root := rig.Issue(t, "a", nil), rig.Issue(t, "root", nil)
	leaf := rig.Issue(t, "leaf", root)
	block, _ := pem.Decode([]byte(rig.Issue(t, "b", nil).KeyPEM(t)))
	block.Type = "ENCRYPTED PRIVATE KEY"
	encrypted := string(pem.EncodeToMemory(block))
	for name, test := range map[string]struct{ key, cert, ca string }{
		"byte order marks":       {mark + id.KeyPEM(t), mark + rig.CertificatesPEM(id), ""},
		"a marked chain":         {leaf.KeyPEM(t), mark + rig.CertificatesPEM(leaf, root), ""},
		"a marked authority":     {id.KeyPEM(t), rig.CertificatesPEM(id), mark + rig.CertificatesPEM(root)},
		"ends of lines in CR LF": {strings.ReplaceAll(id.KeyPEM(t), "\n", "\r\n"), rig.CertificatesPEM(id), ""},
		"text around":            {"key\n" + id.KeyPEM(t) + "end\n", "cert\n" + rig.CertificatesPEM(id) + "end\n", ""},
		"an encrypted key after": {id.KeyPEM(t) + encrypted, rig.CertificatesPEM(id), ""},
		"both in one file":       {id.KeyPEM(t) + rig.CertificatesPEM(id), id.KeyPEM(t) + rig.CertificatesPEM(id), ""},
	} {
		ca := ""
		if test.ca != "" {
			ca = write(t, "ca.pem", test.ca)
		}
		if _, err := Load(write(t, "key.pem", test.key), write(t, "cert.pem", test.cert), ca); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	first := write(t, "first.pem", encrypted+id.KeyPEM(t))
	if _, err := Load(first, write(t, "cert.pem", rig.CertificatesPEM(id)), ""); err == nil {
		t.Error("a file is accepted in which the first key is encrypted")
	}
}

func TestWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, now := generate(t, "P-256"), time.Now()
		const day = 24 * time.Hour
		for _, test := range []struct {
			from, until time.Duration // from now
			want        string
		}{
			{-day, 15 * day, ""},
			{-day, 14*day - time.Minute, "the certificate expires on 2000-01-14 23:59 UTC; renew it before"},
			{-90 * day, time.Minute, "the certificate expires on 2000-01-01 00:01 UTC; renew it before"},
			{-90 * day, -time.Minute,
				"the certificate expired on 1999-12-31 23:59 UTC, so browsers refuse it; renew it"},
			{time.Minute, 90 * day, "the certificate is not valid before 2000-01-01 00:01 UTC, so browsers refuse it; " +
				"wait until then, or correct the clock of this machine"},
		} {
			keyFile, certFile := issue(t, key, now.Add(test.from), now.Add(test.until))
			c, err := Load(keyFile, certFile, "")
			if err != nil {
				t.Fatal(err)
			}
			want := test.want
			if want != "" {
				want = "sslcert " + certFile + ": " + want
			}
			if got := c.Warning(); got != want {
				t.Errorf("the warning is %q, want %q", got, want)
			}
			if got := c.NotAfter(); !got.Equal(now.Add(test.until)) {
				t.Errorf("it expires on %v, want %v", got, now.Add(test.until))
			}
		}
		var none *Certificate
		if none.Warning() != "" || !none.NotAfter().IsZero() {
			t.Error("there are dates without a certificate")
		}
	})
}

// While the daemon runs, there is a warning each day from 14 days before the end on, and
// one after a renewal that brings a certificate which expires.
func TestDailyWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, now := generate(t, "P-256"), time.Now()
		const day = 24 * time.Hour
		keyFile, certFile := issue(t, key, now.Add(-day), now.Add(16*day+time.Hour))
		c, err := Load(keyFile, certFile, "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		warnings := make(chan string, 100)
		go c.Watch(ctx, func(line string) { warnings <- line })
		<-time.After(2*day + time.Hour)
		if got := len(warnings); got != 0 {
			t.Errorf("%d warnings more than 14 days before the end", got)
		}
		<-time.After(3 * day)
		if got := len(warnings); got != 3 {
			t.Errorf("%d warnings in three days, want 3", got)
		}
		for range len(warnings) {
			if got, want := <-warnings, "sslcert "+certFile+": the certificate expires on 2000-01-17 01:00 UTC; "+
				"renew it before"; got != want {
				t.Errorf("the warning is %q, want %q", got, want)
			}
		}
		_, expired := issue(t, key, now.Add(-2*day), now.Add(-day))
		replace(t, certFile, contents(t, expired))
		<-time.After(10 * time.Second)
		if len(warnings) != 1 {
			t.Fatalf("%d warnings after a renewal, want 1", len(warnings))
		}
		if got, want := <-warnings, "sslcert "+certFile+": the certificate expired on 1999-12-31 00:00 UTC, "+
			"so browsers refuse it; renew it"; got != want {
			t.Errorf("the warning is %q, want %q", got, want)
		}
	})
}

// served returns the name in the certificate that is served.
func served(c *Certificate) string {
	certificate, _ := c.Get(nil)
	return certificate.Leaf.Subject.CommonName
}

func contents(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second, root := rig.Issue(t, "first", nil), rig.Issue(t, "second", nil), rig.Issue(t, "root", nil)
		keyFile, certFile := write(t, "key.pem", first.KeyPEM(t)), write(t, "cert.pem", rig.CertificatesPEM(first))
		caFile := write(t, "ca.pem", rig.CertificatesPEM(root))
		c, err := Load(keyFile, certFile, caFile)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		warnings := make(chan string, 10)
		go c.Watch(ctx, func(line string) { warnings <- line })

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
		if got := <-warnings; got != want {
			t.Errorf("the warning is %q, want %q", got, want)
		}

		// So it is with files that load, but with a key with which nobody can connect.
		<-warnings
		<-warnings
		weakKey, weak := issue(t, generate(t, "P-224"), time.Now(), time.Now().Add(90*24*time.Hour))
		replace(t, keyFile, contents(t, weakKey))
		replace(t, certFile, contents(t, weak))
		<-time.After(time.Minute)
		if got := served(c); got != "second" || len(warnings) != 1 {
			t.Fatalf("with a weak key %s is served, there are %d warnings", got, len(warnings))
		}
		want = "sslkey " + keyFile + " with sslcert " + certFile + ": no client can connect with this key: " +
			"unsupported certificate curve (P-224); use one on the curve P-256, or an RSA key of 2048 bits; " +
			"the old certificate is still served"
		if got := <-warnings; got != want {
			t.Errorf("the warning is %q, want %q", got, want)
		}

		// A link that is swapped, as certbot does it, is a change as well.
		third := rig.Issue(t, "third", nil)
		os.Remove(certFile)
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
