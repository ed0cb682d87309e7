package rig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Identity is a certificate and its key.
type Identity struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
}

// Issue makes a certificate for 127.0.0.1 and localhost that issuer signs. If
// issuer is nil, the certificate signs itself. Name is its common name.
func Issue(t testing.TB, name string, issuer *Identity) *Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(90 * 24 * time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames:              []string{"localhost"},
	}
	signer := &Identity{template, key}
	if issuer != nil {
		signer = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.Certificate, &key.PublicKey, signer.Key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{certificate, key}
}

// KeyPEM returns the key as the text of a PEM file.
func (id *Identity) KeyPEM(t testing.TB) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// Write writes the certificate and the key to two PEM files.
func (id *Identity) Write(t testing.TB, certFile, keyFile string) {
	t.Helper()
	for file, text := range map[string]string{certFile: CertificatesPEM(id), keyFile: id.KeyPEM(t)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// CertificatesPEM returns certificates as the text of one PEM file.
func CertificatesPEM(of ...*Identity) string {
	var text strings.Builder
	for _, id := range of {
		pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: id.Certificate.Raw})
	}
	return text.String()
}

// WriteCertificate writes cert.pem and key.pem into a folder, and returns the
// roots that trust the certificate.
func WriteCertificate(t testing.TB, folder string) *x509.CertPool {
	t.Helper()
	id := Issue(t, "pixel", nil)
	id.Write(t, filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	roots := x509.NewCertPool()
	roots.AddCert(id.Certificate)
	return roots
}

// WriteSelfSigned writes a certificate that key signs for itself, and the key, to cert.pem
// and key.pem in a folder. The key may be of any kind. Without dates in the template, the
// certificate is valid for 90 days.
func WriteSelfSigned(t testing.TB, folder string, key crypto.Signer, template x509.Certificate) {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyText, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"key.pem": {Type: "PRIVATE KEY", Bytes: keyText}, "cert.pem": {Type: "CERTIFICATE", Bytes: cert},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
