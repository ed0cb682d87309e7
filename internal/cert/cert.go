// Package cert loads the certificate of the HTTPS server, and loads it again when
// its files change.
package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// checkInterval is how often the files are read to see whether they have changed.
// With 3 seconds, a renewal is served within the 10 seconds that the README
// promises, even if a check falls between the replacement of key and certificate.
const checkInterval = 3 * time.Second

// Certificate holds the certificate that is served at the moment, with its key.
// The original reads its files only once. Get may be called by many goroutines at
// once, also while Watch runs; there is one Watch at a time.
type Certificate struct {
	files   files
	texts   texts // what current was made from
	current atomic.Pointer[tls.Certificate]
}

// files has the names of three files in PEM: the key, its certificate, and the
// certificates of the authorities (empty for none). texts has their contents.
type (
	files struct{ key, cert, ca string }
	texts struct{ key, cert, ca string }
)

// Load reads a key, its certificate and the certificates of the authorities. caFile
// may be empty. Without a keyFile there is nothing to load, and the Certificate is
// nil. An error is one line that names the setting and the file.
//
// The authorities only complete the chain that is served, as sslca does in the
// original, where OpenSSL looks up the issuer among them. If certFile holds a
// chain already, the chain is served as it is.
func Load(keyFile, certFile, caFile string) (*Certificate, error) {
	if keyFile == "" {
		return nil, nil
	}
	c := &Certificate{files: files{keyFile, certFile, caFile}}
	var err error
	if c.texts, err = c.files.read(); err != nil {
		return nil, err
	}
	certificate, err := c.files.parse(c.texts)
	if err != nil {
		return nil, err
	}
	c.current.Store(certificate)
	return c, nil
}

// Getter returns Get, or nil if c is nil.
func (c *Certificate) Getter() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c == nil {
		return nil
	}
	return c.Get
}

// Get returns the certificate for a handshake. It has the signature of
// tls.Config.GetCertificate. It may be called by many goroutines at once, and
// does not read files.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Watch loads the certificate again within seconds after its files have changed,
// until ctx ends. It compares the contents of the files, so it does not matter how
// they are replaced. If they do not load, the old certificate stays, and Watch calls
// warn once for each new error that two checks in a row have found. One check alone
// may fall between the replacement of the key and that of the certificate. If c is
// nil, Watch returns at once.
func (c *Certificate) Watch(ctx context.Context, warn func(error)) {
	if c == nil {
		return
	}
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	var seen, warned string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := c.renew()
		switch {
		case err == nil:
			seen, warned = "", ""
		case err.Error() != seen:
			seen = err.Error()
		case err.Error() != warned:
			warned = err.Error()
			warn(fmt.Errorf("%w; the old certificate is still served", err))
		}
	}
}

// renew loads the certificate if the contents of its files have changed.
func (c *Certificate) renew() error {
	now, err := c.files.read()
	if err != nil || now == c.texts {
		return err
	}
	certificate, err := c.files.parse(now)
	if err != nil {
		return err
	}
	c.texts = now
	c.current.Store(certificate)
	return nil
}

func (f files) read() (t texts, err error) {
	if t.key, err = read("sslkey", f.key); err != nil {
		return t, err
	}
	if t.cert, err = read("sslcert", f.cert); err != nil {
		return t, err
	}
	if f.ca != "" {
		t.ca, err = read("sslca", f.ca)
	}
	return t, err
}

func (f files) parse(t texts) (*tls.Certificate, error) {
	if isEncrypted([]byte(t.key)) {
		return nil, fmt.Errorf("sslkey %s: the key is encrypted; decrypt it into another file, and name that one: "+
			"openssl pkey -in %s -out decrypted.pem", f.key, f.key)
	}
	certificate, err := tls.X509KeyPair([]byte(t.cert), []byte(t.key))
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "tls: ")
		return nil, fmt.Errorf("sslkey %s with sslcert %s: %s", f.key, f.cert, reason)
	}
	if f.ca != "" {
		authorities, err := parseAuthorities([]byte(t.ca))
		if err != nil {
			return nil, fmt.Errorf("sslca %s: %w", f.ca, err)
		}
		complete(&certificate, authorities)
	}
	return &certificate, nil
}

func read(setting, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err
		}
		return "", fmt.Errorf("%s %s: %w", setting, file, err)
	}
	return string(text), nil
}

// isEncrypted reports whether the key needs a passphrase. PKCS #8 has a type of its
// own for such a key, the older formats of OpenSSL have a header.
func isEncrypted(text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

func parseAuthorities(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		authority, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, authority)
	}
	if all == nil {
		return nil, errors.New("the file holds no certificate in PEM")
	}
	return all, nil
}

// complete appends the issuer of a certificate that comes alone, the issuer's issuer
// and so on. The root is left out: clients have it.
func complete(certificate *tls.Certificate, authorities []*x509.Certificate) {
	if len(certificate.Certificate) > 1 {
		return
	}
	last := certificate.Leaf
	for range authorities {
		for _, authority := range authorities {
			isRoot := bytes.Equal(authority.RawSubject, authority.RawIssuer)
			if !isRoot && last.CheckSignatureFrom(authority) == nil {
				certificate.Certificate = append(certificate.Certificate, authority.Raw)
				last = authority
				break
			}
		}
	}
}
