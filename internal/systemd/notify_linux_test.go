package systemd

import (
	"net"
	"testing"
)

// A name that begins with @ is one in Linux's abstract namespace, without a file.
func TestAbstractManager(t *testing.T) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + t.TempDir(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", conn.LocalAddr().String())
	NewNotifier().Stopping("a")
	manager{conn}.expect(t, "STOPPING=1\nSTATUS=a")
}
