// Package cert loads the certificate of the HTTPS server, loads it again when its files
// change, and warns before it expires.
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
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"pixel-ping/internal/arguments"
)

const (
	// checkInterval is how often the files are read to see whether they have changed.
	// With 3 seconds, a renewal is served within the 10 seconds that the README
	// promises, even if a check falls between the replacement of key and certificate.
	checkInterval = 3 * time.Second
	// warnInterval is how often Watch calls warn for a certificate that expires.
	warnInterval = 24 * time.Hour
	// warnBefore is how long before its end a certificate is warned of. Certificates of
	// 45 days are renewed 15 days before their end.
	warnBefore = 14 * 24 * time.Hour
	// handshakeTimeout is for the handshake that tries a certificate. It takes some
	// milliseconds of CPU.
	handshakeTimeout = 10 * time.Second
)

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
// nil. An error is one line that names the setting and the file. It is also an error
// if no client can connect with the certificate, whoever it is for.
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

// NotAfter returns when the certificate that is served expires, or the zero time if c
// is nil. It may be called by many goroutines at once.
func (c *Certificate) NotAfter() time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.current.Load().Leaf.NotAfter
}

// Warning returns a line about a certificate that has expired, expires within 14 days,
// or is not valid yet, and "" about any other. Such a certificate is served all the
// same: clients may not look at the dates. If c is nil, Warning returns "". It may be
// called by many goroutines at once.
func (c *Certificate) Warning() string {
	if c == nil {
		return ""
	}
	const minute = "2006-01-02 15:04 UTC"
	leaf, now := c.current.Load().Leaf, time.Now()
	from, until := leaf.NotBefore.UTC().Format(minute), leaf.NotAfter.UTC().Format(minute)
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("sslcert %s: the certificate expired on %s, so browsers refuse it; renew it", c.files.cert, until)
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("sslcert %s: the certificate is not valid before %s, so browsers refuse it; "+
			"wait until then, or correct the clock of this machine", c.files.cert, from)
	case now.Add(warnBefore).After(leaf.NotAfter):
		return fmt.Sprintf("sslcert %s: the certificate expires on %s; renew it before", c.files.cert, until)
	}
	return ""
}

// Watch loads the certificate again within seconds after its files have changed,
// until ctx ends. It compares the contents of the files, so it does not matter how
// they are replaced. If they do not load, the old certificate stays, and Watch calls
// warn once for each new error that two checks in a row have found. One check alone
// may fall between the replacement of the key and that of the certificate. Once a day
// and after a renewal, Watch calls warn with the line of Warning, if there is one. If
// c is nil, Watch returns at once.
func (c *Certificate) Watch(ctx context.Context, warn func(line string)) {
	if c == nil {
		return
	}
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	var seen, warned string
	looked := time.Now() // when the dates were looked at; the caller of Load has done so
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		renewed, err := c.renew()
		switch {
		case err == nil:
			seen, warned = "", ""
		case err.Error() != seen:
			seen = err.Error()
		case err.Error() != warned:
			warned = err.Error()
			warn(warned + "; the old certificate is still served")
		}
		if renewed || time.Since(looked) >= warnInterval {
			looked = time.Now()
			if line := c.Warning(); line != "" {
				warn(line)
			}
		}
	}
}

// renew loads the certificate if the contents of its files have changed.
func (c *Certificate) renew() (renewed bool, err error) {
	now, err := c.files.read()
	if err != nil || now == c.texts {
		return false, err
	}
	certificate, err := c.files.parse(now)
	if err != nil {
		return false, err
	}
	c.texts = now
	c.current.Store(certificate)
	return true, nil
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
			"openssl pkey -in %s -out decrypted.pem", f.key, arguments.Quote(f.key))
	}
	certificate, err := tls.X509KeyPair([]byte(t.cert), []byte(t.key))
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "tls: ")
		if strings.Contains(reason, "does not match") && strings.Count(t.cert, "-----BEGIN CERTIFICATE-----") > 1 {
			reason += "; of several certificates in sslcert, the server's own has to be the first"
		}
		return nil, fmt.Errorf("sslkey %s with sslcert %s: %s", f.key, f.cert, reason)
	}
	if f.ca != "" {
		authorities, err := parseAuthorities([]byte(t.ca))
		if err != nil {
			return nil, fmt.Errorf("sslca %s: %w", f.ca, err)
		}
		complete(&certificate, authorities)
	}
	if err := shakeHands(certificate); err != nil {
		return nil, fmt.Errorf("sslkey %s with sslcert %s: no client can connect with this key: %s; "+
			"use one on the curve P-256, or an RSA key of 2048 bits",
			f.key, f.cert, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return &certificate, nil
}

// shakeHands makes a TLS handshake with the certificate, in memory. A key on P-224 or an
// RSA key of 512 bits loads, but no version of TLS has a signature for it.
func shakeHands(certificate tls.Certificate) error {
	ours, theirs := net.Pipe()
	defer ours.Close()
	ours.SetDeadline(time.Now().Add(handshakeTimeout))
	// A ticket would be written after the client has returned, and block.
	server := tls.Server(ours, &tls.Config{Certificates: []tls.Certificate{certificate}, SessionTicketsDisabled: true})
	go func() {
		defer theirs.Close()
		tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake()
	}()
	return server.Handshake()
}

func read(setting, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			err = path.Err
		}
		return "", fmt.Errorf("%s %s: %w", setting, file, err)
	}
	// pem.Decode does not find a first block that begins after a byte order mark.
	return strings.TrimPrefix(string(text), "\uFEFF"), nil
}

// isEncrypted reports whether the first key needs a passphrase. Further keys are not
// used. PKCS #8 has a type of its own for such a key, the older formats of OpenSSL have
// a header.
func isEncrypted(text []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
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
