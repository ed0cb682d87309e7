package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
)

// flood makes a hit for each of many keys, one behind the other on one
// connection, and waits until all are answered.
func flood(t *testing.T, address string, keys int) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		w := bufio.NewWriter(conn)
		for i := range keys {
			fmt.Fprintf(w, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target(fmt.Sprint("article-", i)))
		}
		w.Flush()
	}()
	r := bufio.NewReader(conn)
	for range keys {
		if answer, err := readAnswer(r); err != nil || answer.StatusCode != 200 {
			t.Fatalf("%v, %v", answer, err)
		}
	}
}

// target returns the target of a key's pixel.
func target(key string) string { return "/pixel.gif?key=" + url.QueryEscape(key) }

// readAnswer reads an answer to its end.
func readAnswer(r *bufio.Reader) (*http.Response, error) {
	answer, err := http.ReadResponse(r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	return answer, err
}
