// Package health asks a daemon that runs whether it serves the pixel, for pixel-ping
// --health: container engines, probes and scripts need no HTTP client of their own.
package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// timeout is the time for everything together, so that the program ends within 3
// seconds.
const timeout = 2500 * time.Millisecond

// Ask requests path without a query, which counts nothing, from the daemon that serves
// at host and port, or at the Unix socket at path socket, as the configuration has them,
// over TLS if secure. It returns nil if the answer is a GIF, and else an error of one
// line. Which name the certificate has does not matter: it is seldom that of the address
// that is asked. Ask takes 2.5 seconds at most.
func Ask(ctx context.Context, host string, port int, socket string, secure bool, path string) error {
	if socket == "" && port <= 0 {
		return errors.New("port: the daemon's port is not in the configuration; want a number from 1 to 65535")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	client := http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dial(ctx, host, port, socket)
			},
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://localhost"+path, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if of, ok := errors.AsType[*url.Error](err); ok {
			err = of.Err // without the request
		}
		return fmt.Errorf("the daemon does not answer: %w", err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "image/gif" {
		return fmt.Errorf("the answer is not the pixel, but status %d of type %q",
			answer.StatusCode, answer.Header.Get("Content-Type"))
	}
	return nil
}

// dial connects to the first address of the daemon that accepts connections.
func dial(ctx context.Context, host string, port int, socket string) (conn net.Conn, err error) {
	if socket != "" {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	hosts := []string{host}
	if ip, err := netip.ParseAddr(cmp.Or(host, "::")); host == "localhost" || err == nil && ip.IsUnspecified() {
		hosts = []string{"127.0.0.1", "::1"} // either may be missing on a machine
	}
	for _, host := range hosts {
		if conn, err = new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
