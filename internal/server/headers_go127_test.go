//go:build go1.27

package server

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A request may have 100 headers. With more, it gets an answer and counts nothing.
func TestManyHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, store, p := startPiped(t, Limits{}, io.Discard)
		for headers, want := range map[int]int{100: 200, 101: 431} { // one of them is Host
			conn := p.dial()
			more := strings.Repeat("X: y\r\n", headers-1)
			go io.WriteString(conn, strings.TrimSuffix(hit, "\r\n")+more+"\r\n")
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if answer.StatusCode != want {
				t.Errorf("%d headers: %s, want %d", headers, answer.Status, want)
			}
			conn.Close()
		}
		<-time.After(time.Second) // net/http waits before it closes a connection with a header half read
		if got := store.Stats().Pending; got != 1 {
			t.Errorf("%d hits are counted, want 1", got)
		}
	})
}
