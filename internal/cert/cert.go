// Package cert loads the certificate that makes the server an HTTPS one.
package cert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Load reads a key, its certificate and, if caFile is not empty, those of the
// authorities, all in PEM. An error names the setting and the file.
//
// The authorities' only complete the chain that is served, as sslca does in
// the original: OpenSSL looks there for the issuer of a certificate that comes
// alone. A certificate that brings its chain is served as it is.
func Load(keyFile, certFile, caFile string) (*tls.Certificate, error) {
	key, err := read("sslkey", keyFile)
	if err != nil {
		return nil, err
	}
	chain, err := read("sslcert", certFile)
	if err != nil {
		return nil, err
	}
	certificate, err := tls.X509KeyPair(chain, key)
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), "tls: ")
		return nil, fmt.Errorf("sslkey %s with sslcert %s: %s", keyFile, certFile, reason)
	}
	if caFile == "" {
		return &certificate, nil
	}
	text, err := read("sslca", caFile)
	if err != nil {
		return nil, err
	}
	authorities, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("sslca %s: %w", caFile, err)
	}
	complete(&certificate, authorities)
	return &certificate, nil
}

func read(setting, file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", setting, file, err)
	}
	return text, nil
}

func parse(text []byte) ([]*x509.Certificate, error) {
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
