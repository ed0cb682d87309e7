// Package post makes one POST of counts to the application, with the bytes of the
// original's, and says what became of it. The endpoint decides which counts.
package post

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

	"pixel-ping/internal/cert"
	"pixel-ping/internal/hits"
)

const (
	// drainTimeout is for what follows the status line, which says nothing new.
	drainTimeout = time.Second
	// maxAnswer is how many bytes of an answer are read: more than any header
	// that servers accept.
	maxAnswer = 256 << 10
)

// A Client makes POSTs, each over a connection of its own. One goroutine at a time may
// use it.
type Client struct {
	secret        string
	target        string // of the request line
	host          string // as the Host header has it, lower case as Node's
	network       string // tcp or unix
	address       string // to connect to
	authorization string // a header line, or ""

	tls   *tls.Config // nil for http
	stale bool        // the application's certificate was not valid with the roots in tls

	// Dial looks up the name and connects, as net.Dialer's DialContext does. It may be
	// replaced before the first Post.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Alive is called at the beginning of each POST with the most time that it may take.
	// It may be nil.
	Alive func(within time.Duration)
	// Ready is called when there is a connection, before a request with an id is written to it.
	// After an error nothing is written. It may be nil.
	Ready func() error
}

// New returns a Client for the scheme (http or https), host and user of u. If u has a path,
// it is that of the Unix socket to connect to. The request line has target. If secret is
// not empty, it is sent with the counts. The environment's proxy settings are not consulted.
//
// The original sends only the path of the URL (its endReqOpts). Here target may have a
// query, and user:password is sent as Basic authentication, since that is what the URL says.
func New(u *url.URL, target, secret string) *Client {
	// The zone of an IPv6 address means something on this machine only (RFC 6874), so
	// that Apache answers 400 to a Host with one.
	name, zone, _ := strings.Cut(u.Hostname(), "%")
	name, port := strings.ToLower(name), u.Port()
	c := &Client{secret: secret, target: target, host: name, network: "tcp", Dial: dial}
	if strings.Contains(name, ":") {
		c.host = "[" + name + "]"
	}
	if port != "" {
		c.host += ":" + port
	}
	defaultPort := "80"
	if u.Scheme == "https" {
		c.tls = &tls.Config{ServerName: name}
		defaultPort = "443"
	}
	if zone != "" {
		name += "%" + zone
	}
	c.address = net.JoinHostPort(name, cmp.Or(port, defaultPort))
	if u.Path != "" {
		c.network, c.address = "unix", u.Path
	}
	if u.User != nil {
		password, _ := u.User.Password()
		login := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		c.authorization = "Authorization: Basic " + login + "\r\n"
	}
	return c
}

// A Failure is why the application did not accept a POST.
type Failure struct {
	Outcome Outcome
	Written bool // the whole request was written: if Outcome is no status, the application may have saved the counts

	message  string // as the original's log has it
	location string // where a redirect leads, for RedirectsTo
}

// Error returns the reason as the original's log has it.
func (f *Failure) Error() string { return f.message }

// RedirectsTo returns the URL to which the application redirects, if err is about that and
// the URL may be an endpoint, or else "". It leaves out user, password, parameters, query
// and fragment, which may be secrets.
func RedirectsTo(err error) string {
	if failed, ok := errors.AsType[*Failure](err); ok {
		return failed.location
	}
	return ""
}

// An Outcome is the status of the answer, or one of the constants if there was none.
type Outcome int

const (
	Unreachable Outcome = iota // there was no connection, or the answer is not HTTP
	Cut                        // the connection was reset or closed before there was an answer
	Late                       // there was no answer in time, or the context has ended
	Unready                    // Ready has failed
)

// Post makes one POST of counts, in that order, and returns nil if the
// application accepted them: if it answered with a status of 200 to 299. Any
// other error is a *Failure. The POST takes no longer than timeout, from the look-up of
// the host to the status line; of this, each connection takes at most 10 seconds, and so
// does its TLS handshake. Without an id, the request has no Idempotency-Key.
//
// The status line decides, whatever happens to the connection after it. The
// original also looks at the connection, and merges back what was accepted if
// the connection is reset after the answer. So does http.Client, which is why
// it is not used; it would also follow a redirect with a GET, which loses the
// hits.
func (c *Client) Post(ctx context.Context, timeout time.Duration, id string, counts []hits.Count) error {
	if c.Alive != nil {
		c.Alive(timeout)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	var status int
	var location string
	var written bool
	how := Unreachable
	conn, raw, err := c.connect(ctx)
	if err == nil && c.Ready != nil && id != "" {
		if err := c.Ready(); err != nil {
			raw.Close()
			return &Failure{Unready, false, "nothing sent : " + err.Error(), ""}
		}
	}
	switch {
	case err == nil:
		status, location, written, err = c.exchange(ctx, conn, raw, id, counts)
		if err != nil && err != errNotHTTP {
			how = Cut
		}
	case c.tls == nil && errors.Is(err, syscall.ECONNRESET):
		how = Cut // A reset may be seen this early, though it came after the connection.
	}
	switch {
	case err != nil && ctx.Err() != nil:
		if how = Late; !errors.Is(err, context.Cause(ctx)) {
			err = context.Cause(ctx)
		}
	case err == nil && status >= 200 && status <= 299:
		return nil
	case err == nil:
		failed := &Failure{Outcome(status), written, fmt.Sprintf("flush failed with code:%d", status), ""}
		if status >= 300 && status <= 399 && location != "" {
			failed.location = c.resolve(location)
		}
		return failed
	}
	return &Failure{how, written, "cannot connect to endpoint : " + reason(err), ""}
}

// exchange writes the request to conn while it reads the answer, and returns the
// answer's status, its Location, and whether the whole request was written. It closes
// conn. A connection is used once: the application may close one that was kept at the
// moment of the next flush.
func (c *Client) exchange(
	ctx context.Context, conn, raw net.Conn, id string, counts []hits.Count,
) (status int, location string, written bool, err error) {
	// raw, as closing conn may wait for the other end to read TLS's close_notify.
	defer context.AfterFunc(ctx, func() { raw.Close() })()

	var writing error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		writing = c.writeRequest(conn, id, counts)
	}()

	// An error in writing is not the end: the answer may be there already.
	answer := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	line, status, err := readStatus(answer)
	if err == nil {
		location = drain(conn, io.MultiReader(strings.NewReader(line), answer))
		if status >= 200 && status <= 299 {
			// An application may answer first and read the rest afterwards.
			<-ended
		}
	}
	conn.Close()
	<-ended
	return status, location, writing == nil, err
}

// connect returns the connection to write to, and the TCP connection below it:
// the same one, but for TLS.
func (c *Client) connect(ctx context.Context) (conn, raw net.Conn, err error) {
	raw, err = c.Dial(ctx, c.network, c.address)
	if err != nil || c.tls == nil {
		return raw, raw, err
	}
	if c.stale {
		// The authority may have been added or renewed since.
		c.tls.RootCAs, c.stale = cert.Roots(), false
	}
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no TLS handshake within %v", connectTimeout))
	defer cancel()
	secure := tls.Client(raw, c.tls)
	if err = secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		_, c.stale = errors.AsType[*tls.CertificateVerificationError](err)
	}
	return secure, raw, err
}

var errNotHTTP = errors.New("the answer is not HTTP")

// Lines may end in LF alone (RFC 9112, 2.2).
var statusLine = regexp.MustCompile(`^HTTP/1\.[01] ([0-9]{3})(?: .*)?\r?\n$`)

// readStatus returns the status line of the answer and its code. It skips empty lines
// before it, and interim answers, such as 103, but takes 101 as final: the request does
// not ask for another protocol.
func readStatus(answer *bufio.Reader) (line string, status int, err error) {
	for {
		if line, err = answer.ReadString('\n'); err != nil {
			return "", 0, err
		}
		if isEmpty(line) {
			continue
		}
		match := statusLine.FindStringSubmatch(line)
		if match == nil {
			return "", 0, errNotHTTP
		}
		status, _ = strconv.Atoi(match[1])
		if status == http.StatusSwitchingProtocols || status < 100 || status > 199 {
			return line, status, nil
		}
		for !isEmpty(line) {
			if line, err = answer.ReadString('\n'); err != nil {
				return "", 0, err
			}
		}
	}
}

func isEmpty(line string) bool { return line == "\r\n" || line == "\n" }

// drain reads the rest of an answer, complete or not, so that the application can finish
// writing it, and returns its Location. drain takes drainTimeout at most, so that no
// answer can hold up the flush.
func drain(conn net.Conn, answer io.Reader) (location string) {
	conn.SetReadDeadline(time.Now().Add(drainTimeout))
	response, err := http.ReadResponse(bufio.NewReader(answer), nil)
	if err != nil {
		return ""
	}
	io.Copy(io.Discard, response.Body)
	return response.Header.Get("Location")
}

// maxLocation is how many bytes of a URL fit into a line of the log. An endpoint is shorter.
const maxLocation = 2000

// resolve returns where a Location leads, or "" if that is no endpoint.
func (c *Client) resolve(location string) string {
	scheme := "http"
	if c.tls != nil {
		scheme = "https"
	}
	to, err := url.Parse(scheme + "://" + c.host + c.target)
	if err == nil {
		to, err = to.Parse(location)
	}
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" {
		return ""
	}
	path, _, _ := strings.Cut(to.EscapedPath(), ";") // a session may be named after it
	if text := (&url.URL{Scheme: to.Scheme, Host: to.Host}).String() + path; len(text) <= maxLocation {
		return text
	}
	return ""
}
