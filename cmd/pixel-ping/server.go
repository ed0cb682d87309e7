package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"pixel-ping/internal/cert"
	"pixel-ping/internal/config"
	"pixel-ping/internal/pixel"
)

// newServer returns a server that has yet to listen: an HTTPS one if there is a
// certificate.
func newServer(handler http.Handler, certificate *cert.Certificate, stderr io.Writer) *http.Server {
	server := &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true,             // OPTIONS * is a 404 as well
		MaxHeaderBytes:               16 << 10,         // as in Node, but for some slack
		ReadTimeout:                  60 * time.Second, // as in Node
		WriteTimeout:                 writeTimeout,
		// A page's later events find the connection open; Node closes it after 6 s.
		IdleTimeout: 75 * time.Second,
		ErrorLog:    log.New(&serverLog{stderr: stderr}, "", 0),
	}
	if certificate != nil {
		server.TLSConfig = &tls.Config{GetCertificate: certificate.Get}
	}
	return server
}

const writeTimeout = 20 * time.Second

// listen binds every address of host, so that localhost is found by whichever
// of 127.0.0.1 and ::1 a client tries first. (The original binds the first that
// the system names, mostly ::1.) An address that the machine does not have,
// such as ::1 where IPv6 is off, is passed over if there is another.
func listen(host string, port int) (listeners []net.Listener, err error) {
	addresses, err := resolve(host)
	if err != nil {
		return nil, err
	}
	// IdleTimeout ends connections that are dead; probes would cost four system
	// calls for each.
	withoutProbes := net.ListenConfig{KeepAlive: -1}
	var failure error
	for _, address := range addresses {
		network := "tcp"
		if address.Is4() {
			network = "tcp4" // or 0.0.0.0 would be all of IPv6, too
		}
		listener, err := withoutProbes.Listen(context.Background(), network, netip.AddrPortFrom(address, uint16(port)).String())
		if err == nil {
			listeners = append(listeners, listener)
			port = listener.Addr().(*net.TCPAddr).Port
			continue
		}
		errno, ok := errors.AsType[syscall.Errno](err)
		if ok {
			err = errno
		}
		failure = fmt.Errorf("host, port: cannot listen on %s: %w", net.JoinHostPort(host, strconv.Itoa(port)), err)
		if !slices.Contains(notHere, errno) {
			return nil, failure
		}
	}
	if listeners == nil {
		return nil, failure
	}
	return listeners, nil
}

// notHere are the errors of an address that the machine does not have, on Unix
// and on Windows.
var notHere = []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, 10049, 10047}

// resolve returns the addresses of host; without one, "::", which is all there
// are.
func resolve(host string) (addresses []netip.Addr, err error) {
	if host == "" {
		return []netip.Addr{netip.IPv6Unspecified()}, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		reason := err.Error()
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			reason = dns.Err
		}
		return nil, fmt.Errorf("host: %q is not known (%s)", host, reason)
	}
	return distinct(found), nil
}

// distinct leaves out what could not be bound a second time.
func distinct(found []netip.Addr) (addresses []netip.Addr) {
	for _, address := range found {
		address = address.Unmap()
		if address.IsUnspecified() {
			return []netip.Addr{address}
		}
		if !slices.Contains(addresses, address) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

// address returns the URL of the pixel, for a person to open.
func address(conf config.Config, listener net.Listener) string {
	scheme, host := "http", conf.Host
	if conf.SSLKey != "" {
		scheme = "https"
	}
	if conf.Socket != "" {
		return scheme + "://unix:" + conf.Socket + ":" + pixel.Path // as nginx has it
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + pixel.Path
}

// serve accepts connections until the server is shut down, and returns why it
// stopped. Those that are open it keeps in open.
func serve(server *http.Server, on net.Listener, open *connections) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener{on, open}, "", "")
	}
	return server.Serve(listener{on, open})
}

// serverLog passes on what net/http says of the server itself: a line each, and
// one a second, as descriptors may be short for long. The rest is about clients,
// who could fill the log with it at will, such as failed handshakes.
type serverLog struct {
	stderr io.Writer
	last   time.Time // of a line; log.Logger writes one at a time
}

func (l *serverLog) Write(message []byte) (int, error) {
	own := bytes.HasPrefix(message, []byte("http: Accept")) || bytes.Contains(message, []byte(": panic serving "))
	if own && time.Since(l.last) > time.Second {
		l.last = time.Now()
		line, _, _ := bytes.Cut(message, []byte("\n"))
		fmt.Fprintf(l.stderr, "pixel-ping: %s\n", line)
	}
	return len(message), nil
}
