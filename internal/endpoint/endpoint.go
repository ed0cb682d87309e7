// Package endpoint delivers a batch of hits to the publisher's application: one
// POST, of the same bytes as the original's. It is the last step of a hit.
package endpoint

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"pixel-ping/internal/hits"
)

const (
	connectTimeout = 10 * time.Second // for connecting and the TLS handshake together
	drainTimeout   = time.Second      // for what follows the status line
	drainBytes     = 64 << 10
)

// Endpoint is where hits are delivered to. Its methods may be called by many
// goroutines at once.
type Endpoint struct {
	secret  string
	timeout time.Duration

	target        string // of the request line
	host          string // as the Host header has it, lower case as Node's
	address       string // to connect to
	authorization string // a header line, or ""

	tls  *tls.Config // nil for http
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns the endpoint at u, an http or https URL with a host. A secret
// that is not empty is sent along. The timeout is for a whole exchange, from
// connecting to the status line of the answer.
//
// The original sends the path of u alone (its endReqOpts). Here the query is
// sent too, and user:password as Basic authentication, since that is what the
// URL says. Proxy settings of the environment are not consulted, in either.
func New(u *url.URL, secret string, timeout time.Duration) *Endpoint {
	name, port := strings.ToLower(u.Hostname()), u.Port()
	e := &Endpoint{
		secret:  secret,
		timeout: timeout,
		target:  u.RequestURI(),
		host:    name,
		dial:    (&net.Dialer{}).DialContext,
	}
	if strings.Contains(name, ":") {
		e.host = "[" + name + "]"
	}
	if port != "" {
		e.host += ":" + port
	}
	if u.Scheme == "https" {
		e.tls = &tls.Config{ServerName: name}
		e.address = net.JoinHostPort(name, cmp.Or(port, "443"))
	} else {
		e.address = net.JoinHostPort(name, cmp.Or(port, "80"))
	}
	if u.User != nil {
		password, _ := u.User.Password()
		login := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		e.authorization = "Authorization: Basic " + login + "\r\n"
	}
	return e
}

// Send posts the counts of keys, in that order, and returns nil if the
// application took them: if it answered with a status of 200 to 299. An error
// is worded as the original's log has it (in its flush). Send only reads
// counts, and does so no more once it has returned. When ctx ends, so does
// Send, at once.
//
// The status line decides, whatever happens to the connection after it. The
// original also looks at the connection, and merges back what was accepted if
// it is reset after the answer. This is the reason for not using http.Client,
// which does so as well; and it would follow a redirect with a GET, which
// loses the hits.
func (e *Endpoint) Send(ctx context.Context, counts hits.Counts, keys []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.timeout, fmt.Errorf("no answer within %v", e.timeout))
	defer cancel()
	status, err := e.exchange(ctx, counts, keys)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	switch {
	case err != nil:
		return fmt.Errorf("cannot connect to endpoint : %s", reason(err))
	case status < 200 || status > 299:
		return fmt.Errorf("flush failed with code:%d", status)
	}
	return nil
}

// exchange makes one connection, since one that was kept from the last flush
// could be closed from the other end just now, writes the request while it
// reads the answer, and returns the answer's status.
func (e *Endpoint) exchange(ctx context.Context, counts hits.Counts, keys []string) (int, error) {
	conn, err := e.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	written := make(chan struct{})
	go func() {
		defer close(written)
		// An error is left to the reading side: the answer may be there already.
		e.writeRequest(conn, counts, keys)
	}()
	defer func() {
		conn.Close()
		<-written
	}()

	answer := bufio.NewReader(conn)
	line, status, err := readStatus(answer)
	if err != nil {
		return 0, err
	}
	drain(conn, io.MultiReader(bytes.NewReader(line), answer))
	if status >= 200 && status <= 299 {
		// An application may answer first and read the rest afterwards.
		<-written
	}
	return status, nil
}

func (e *Endpoint) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no connection within %v", connectTimeout))
	defer cancel()
	conn, err := e.dial(ctx, "tcp", e.address)
	if err == nil && e.tls != nil {
		secure := tls.Client(conn, e.tls)
		if err = secure.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
		conn = secure
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, err
}

// readStatus returns the status line of the answer and its code. Interim
// answers, such as 103, are passed over; 101 is a final one, as nobody asked
// for another protocol.
func readStatus(answer *bufio.Reader) (line []byte, status int, err error) {
	for {
		line, err = answer.ReadSlice('\n')
		if err != nil {
			return nil, 0, err
		}
		line = bytes.Clone(line)
		var minor int
		if n, _ := fmt.Sscanf(string(line), "HTTP/1.%1d %3d", &minor, &status); n != 2 {
			return nil, 0, errors.New("the answer is not HTTP")
		}
		if status == http.StatusSwitchingProtocols || status < 100 || status > 199 {
			return line, status, nil
		}
		for len(bytes.TrimSpace(line)) > 0 {
			if line, err = answer.ReadSlice('\n'); err != nil {
				return nil, 0, err
			}
		}
	}
}

// drain reads the rest of an answer, so that the application is not cut off
// while it writes: up to 64 KiB in a second, so that no answer can hold up the
// flush. What it says, and whether it is complete, is of no interest.
func drain(conn net.Conn, answer io.Reader) {
	conn.SetReadDeadline(time.Now().Add(drainTimeout))
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(answer, drainBytes)), nil)
	if err == nil {
		io.Copy(io.Discard, response.Body)
	}
}
