// Package cert loads the certificate that makes the server an HTTPS one, and
// loads it again when its files change.
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

// checkInterval is how often the files are looked at for a change.
const checkInterval = 3 * time.Second

// Certificate is the one that is served now. The original reads it once.
type Certificate struct {
	files   files
	texts   texts // of current
	current atomic.Pointer[tls.Certificate]
}

// files are the names of a key, its certificate and, if it is not empty, those
// of the authorities, and texts what is in them, all in PEM.
type (
	files struct{ key, cert, ca string }
	texts struct{ key, cert, ca string }
)

// Load reads a certificate from its files; caFile may be empty. An error is one
// line that names the setting and the file.
//
// The authorities' only complete the chain that is served, as sslca does in
// the original: OpenSSL looks there for the issuer of a certificate that comes
// alone. A certificate that brings its chain is served as it is.
func Load(keyFile, certFile, caFile string) (*Certificate, error) {
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

// Get returns the certificate for a handshake (tls.Config's GetCertificate). It
// is safe for concurrent use and does not touch the disk.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// Watch loads the certificate again within seconds after its files have changed,
// until ctx ends. It compares what is in the files, so that it does not matter
// how they are replaced. Files that do not load keep the certificate that is
// served, and are told of, once: not at first sight, since key and certificate
// are not replaced in the same instant.
func (c *Certificate) Watch(ctx context.Context, tell func(error)) {
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	var seen, told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := c.renew()
		switch {
		case err == nil:
			seen, told = "", ""
		case err.Error() != seen:
			seen = err.Error()
		case err.Error() != told:
			told = err.Error()
			tell(fmt.Errorf("%w; the certificate from before is still served", err))
		}
	}
}

// renew loads the certificate if the files are others than those of the current
// one.
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
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", setting, file, err)
	}
	return string(text), nil
}

func parseAuthorities(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
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
		return nil, errors.New("there is no certificate in it")
	}
	return all, nil
}

// complete appends the issuer of a lone certificate, the issuer's issuer and so
// on, up to the root: clients have that one.
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
