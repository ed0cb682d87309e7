//go:build unix

package metrics

import (
	"bufio"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"pixel-ping/internal/rig"
)

func TestSocket(t *testing.T) {
	folder, err := os.MkdirTemp("", "socket") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	s := start(t, path)
	if want := "http://unix:" + path + ":/metrics"; s.url != want {
		t.Errorf("the URL is %s, want %s", s.url, want)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	if answer, err := rig.ReadAnswer(bufio.NewReader(conn)); err != nil || answer.StatusCode != 200 {
		t.Errorf("got %v, %v", answer, err)
	}
	_, err = Start(t.Context(), path, handler(counted100))
	if want := "metrics: cannot listen on " + path + ": address already in use"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	s.Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("after Close there is still a socket (error %v)", err)
	}
}
