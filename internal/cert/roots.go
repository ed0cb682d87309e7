package cert

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"runtime"
)

// The files and the folders in which systems keep the certificates of authorities. Of
// the files, the first that can be read counts, as for crypto/x509.
var (
	rootFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch, containers
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Red Hat
		"/usr/local/etc/ssl/cert.pem",                       // FreeBSD
		"/etc/ssl/cert.pem",                                 // Alpine, OpenBSD
	}
	rootFolders = []string{"/etc/ssl/certs", "/etc/pki/tls/certs", "/usr/local/share/certs"}
)

// Roots reads the certificates of the system's authorities, or those that SSL_CERT_FILE
// and SSL_CERT_DIR name. crypto/x509 reads them once in a process. Roots returns nil,
// which stands for the system's own check, on macOS and Windows, unless one of the
// variables is set.
func Roots() *x509.CertPool {
	file, list := os.Getenv("SSL_CERT_FILE"), os.Getenv("SSL_CERT_DIR")
	if file == "" && list == "" && (runtime.GOOS == "darwin" || runtime.GOOS == "windows") {
		return nil
	}
	roots := x509.NewCertPool()
	files, folders := rootFiles, rootFolders
	if file != "" {
		files = []string{file}
	}
	if list != "" {
		folders = filepath.SplitList(list)
	}
	for _, path := range files {
		if text, err := os.ReadFile(path); err == nil {
			roots.AppendCertsFromPEM(text)
			break
		}
	}
	for _, folder := range folders {
		entries, _ := os.ReadDir(folder)
		for _, entry := range entries {
			if text, err := os.ReadFile(filepath.Join(folder, entry.Name())); err == nil {
				roots.AppendCertsFromPEM(text)
			}
		}
	}
	return roots
}
