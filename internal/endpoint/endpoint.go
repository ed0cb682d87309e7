// Package endpoint delivers a batch of hits to the publisher's application: one
// POST, of the same bytes as the original's. It is the last step of a hit.
package endpoint

import (
	"bufio"
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
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pixel-ping/internal/hits"
)

const (
	minTimeout     = time.Minute      // for an exchange
	connectTimeout = 10 * time.Second // for connecting and the TLS handshake together
	drainTimeout   = time.Second      // for what follows the status line
	maxAnswer      = 256 << 10        // bytes that are read of an answer
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

	tls *tls.Config // nil for http

	// Dial connects, as net.Dialer's DialContext does. It may be replaced before
	// the first Send.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// New returns the endpoint at the scheme (http or https), host and user of u,
// with target for the request line. A secret that is not empty is sent along.
// An exchange, from connecting to the status line of the answer, may take a minute
// or the interval between two flushes, whichever is longer; connecting alone, with
// the TLS handshake, has 10 seconds of it. The original waits for ever.
//
// The original sends the path of the URL alone (its endReqOpts). Here target may
// have a query, and user:password is sent as Basic authentication, since that is
// what the URL says. Proxy settings of the environment are consulted in neither.
func New(u *url.URL, target, secret string, interval time.Duration) *Endpoint {
	name, port := strings.ToLower(u.Hostname()), u.Port()
	e := &Endpoint{
		secret:  secret,
		timeout: max(interval, minTimeout),
		target:  target,
		host:    name,
		Dial:    new(net.Dialer).DialContext,
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

// ErrTooLarge and ErrCut are what an error of Send is, for errors.Is, if the
// application may take the same counts in parts: it has answered with 413, or
// has cut the connection before it had read the request, as some servers do
// instead.
var (
	ErrTooLarge = errors.New("the request is too large")
	ErrCut      = errors.New("the connection was cut")
)

// failure is an error that is worded as the original's log has it.
type failure struct {
	message string
	kind    error // ErrTooLarge, ErrCut, or nil
}

func (f *failure) Error() string { return f.message }

func (f *failure) Unwrap() error { return f.kind }

// Send posts counts, in that order, and returns nil if the
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
func (e *Endpoint) Send(ctx context.Context, counts []hits.Count) error {
	ctx, cancel := context.WithTimeoutCause(ctx, e.timeout, fmt.Errorf("no answer within %v", e.timeout))
	defer cancel()
	status, cut, err := e.exchange(ctx, counts)
	if err != nil && ctx.Err() != nil {
		err, cut = context.Cause(ctx), false
	}
	switch {
	case cut:
		return &failure{"cannot connect to endpoint : " + reason(err), ErrCut}
	case err != nil:
		return &failure{"cannot connect to endpoint : " + reason(err), nil}
	case status == http.StatusRequestEntityTooLarge:
		return &failure{fmt.Sprintf("flush failed with code:%d", status), ErrTooLarge}
	case status < 200 || status > 299:
		return &failure{fmt.Sprintf("flush failed with code:%d", status), nil}
	}
	return nil
}

// exchange makes one connection, since one that was kept from the last flush
// could be closed from the other end just now, writes the request while it
// reads the answer, and returns the answer's status. With an error it reports
// whether the connection was cut before the request was read.
func (e *Endpoint) exchange(ctx context.Context, counts []hits.Count) (status int, cut bool, err error) {
	conn, raw, err := e.connect(ctx)
	if err != nil {
		// A reset may be seen this early, though it came after the connection.
		return 0, e.tls == nil && errors.Is(err, syscall.ECONNRESET), err
	}
	// Without TLS's farewell, which may take its time.
	defer context.AfterFunc(ctx, func() { raw.Close() })()

	var writing error
	written := make(chan struct{})
	go func() {
		defer close(written)
		writing = e.writeRequest(conn, counts)
	}()

	// An error in writing is not the end: the answer may be there already.
	answer := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	line, status, err := readStatus(answer)
	if err == nil {
		drain(conn, io.MultiReader(strings.NewReader(line), answer))
		if status >= 200 && status <= 299 {
			// An application may answer first and read the rest afterwards.
			<-written
		}
	}
	conn.Close()
	<-written
	// What was written may be on its way still. It was not read if the other end
	// resets the connection, which is what closing it does then.
	unread := writing != nil || errors.Is(err, syscall.ECONNRESET)
	return status, err != nil && unread && err != errNotHTTP, err
}

// connect returns a connection, and the one that it is made over, which with TLS
// is another.
func (e *Endpoint) connect(ctx context.Context) (conn, raw net.Conn, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no connection within %v", connectTimeout))
	defer cancel()
	raw, err = e.Dial(ctx, "tcp", e.address)
	conn = raw
	if err == nil && e.tls != nil {
		secure := tls.Client(raw, e.tls)
		if err = secure.HandshakeContext(ctx); err != nil {
			raw.Close()
		}
		conn = secure
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return conn, raw, err
}

var errNotHTTP = errors.New("the answer is not HTTP")

var statusLine = regexp.MustCompile(`^HTTP/1\.[01] ([0-9]{3})(?: .*)?\r\n$`)

// readStatus returns the status line of the answer and its code. Interim
// answers, such as 103, are passed over; 101 is a final one, as nobody asked
// for another protocol.
func readStatus(answer *bufio.Reader) (line string, status int, err error) {
	for {
		if line, err = answer.ReadString('\n'); err != nil {
			return "", 0, err
		}
		match := statusLine.FindStringSubmatch(line)
		if match == nil {
			return "", 0, errNotHTTP
		}
		status, _ = strconv.Atoi(match[1])
		if status == http.StatusSwitchingProtocols || status < 100 || status > 199 {
			return line, status, nil
		}
		for line != "\r\n" {
			if line, err = answer.ReadString('\n'); err != nil {
				return "", 0, err
			}
		}
	}
}

// drain reads the rest of an answer, so that the application is not cut off
// while it writes, for a second at the most, so that no answer can hold up the
// flush. What it says, and whether it is complete, is of no interest.
func drain(conn net.Conn, answer io.Reader) {
	conn.SetReadDeadline(time.Now().Add(drainTimeout))
	response, err := http.ReadResponse(bufio.NewReader(answer), nil)
	if err == nil {
		io.Copy(io.Discard, response.Body)
	}
}
