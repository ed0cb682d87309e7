package rig

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// ReadRequest reads one request, whose header must have a Content-Length, and
// returns its bytes. It accepts every request target, also those that net/http
// refuses and the original posts to.
func ReadRequest(conn net.Conn) (string, error) {
	var all strings.Builder
	r := textproto.NewReader(bufio.NewReader(io.TeeReader(conn, &all)))
	if _, err := r.ReadLine(); err != nil {
		return "", err
	}
	header, err := r.ReadMIMEHeader()
	if err != nil {
		return "", err
	}
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		return "", err
	}
	_, err = io.CopyN(io.Discard, r.R, length)
	return all.String(), err
}

// ReadAnswer reads one answer to a GET or POST request and discards its body.
func ReadAnswer(r *bufio.Reader) (*http.Response, error) {
	answer, err := http.ReadResponse(r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	return answer, err
}

// Counts returns the counts in the body of a flush. N is the type of a count: any
// for the original, which sends some as strings.
func Counts[N any](t testing.TB, body string) map[string]N {
	t.Helper()
	form, err := url.ParseQuery(body)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var counts map[string]N
	if err := json.Unmarshal([]byte(form.Get("json")), &counts); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return counts
}
