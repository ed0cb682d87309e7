//go:build unix

package server

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// listenOn returns a listener of each kind, in this order: addresses and ports are the
// system's choice, and an inherited one is what package listen makes of a descriptor.
func listenOn(t *testing.T, kinds ...string) (listeners []net.Listener) {
	t.Helper()
	folder, err := os.MkdirTemp("", "listen") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	for i, kind := range kinds {
		network, address := "tcp", "127.0.0.1:0"
		switch kind {
		case "IPv6":
			if rig.HasIPv6(t) {
				address = "[::1]:0"
			}
		case "Unix", "inherited Unix":
			network, address = "unix", filepath.Join(folder, string('a'+rune(i)))
		}
		listener, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		if kind == "inherited TCP" || kind == "inherited Unix" {
			file, err := listener.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Fatal(err)
			}
			if unix, ok := listener.(*net.UnixListener); ok {
				unix.SetUnlinkOnClose(false)
			}
			listener.Close()
			listener, err = net.FileListener(file)
			file.Close()
			if err != nil {
				t.Fatal(err)
			}
		}
		listeners = append(listeners, listener)
	}
	return listeners
}

// Every listener speaks what New was told, whatever its kind and whichever Serve comes
// first: TLS with a certificate, plain HTTP without one.
func TestListenersAreServedAlike(t *testing.T) {
	const starts = 20
	folder := t.TempDir()
	roots := rig.WriteCertificate(t, folder)
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for scheme, certificate := range map[string]func(*tls.ClientHelloInfo) (*tls.Certificate, error){
		"http":  nil,
		"https": func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil },
	} {
		for _, kinds := range [][]string{
			{"IPv4", "IPv6"},
			{"Unix", "IPv4"},
			{"inherited TCP", "inherited Unix"},
			{"IPv4", "IPv6", "Unix"},
			{"inherited TCP", "inherited TCP", "inherited Unix"},
		} {
			for range starts { // which Serve comes first differs from one to the next
				s := New(http.NotFoundHandler(), certificate, Limits{}, rig.NewOutput())
				listeners := listenOn(t, kinds...)
				for _, listener := range listeners {
					go s.Serve(listener)
				}
				for i, listener := range listeners {
					transport := &http.Transport{
						TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"},
						DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
							return new(net.Dialer).DialContext(ctx, listener.Addr().Network(), listener.Addr().String())
						},
					}
					client := http.Client{Transport: transport, Timeout: rig.Deadline}
					answer, err := client.Get(scheme + "://localhost/")
					if err != nil {
						t.Errorf("%s, listeners %v: the one of kind %s: %v", scheme, kinds, kinds[i], err)
						continue
					}
					answer.Body.Close()
					if answer.StatusCode != http.StatusNotFound {
						t.Errorf("%s, listeners %v: the one of kind %s answers %s", scheme, kinds, kinds[i], answer.Status)
					}
					transport.CloseIdleConnections()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				s.Stop(ctx)
				cancel()
				if t.Failed() {
					return
				}
			}
		}
	}
}
