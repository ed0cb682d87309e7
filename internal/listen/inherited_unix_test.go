//go:build unix

package listen

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// The test binary starts itself as a daemon that inherits sockets.
func TestMain(m *testing.M) {
	if os.Getenv("INHERIT") != "" {
		child()
	}
	os.Exit(m.Run())
}

// child prints what it inherits, and answers one connection over each socket with
// the address of the socket.
func child() {
	listeners, err := inherited()
	if err != nil {
		fmt.Println(err)
		for fd := range 64 {
			if on, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); on == 1 {
				fmt.Println("a socket is left open")
			}
		}
		os.Exit(1)
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		if _, set := os.LookupEnv(name); set {
			fmt.Println("children are told of", name)
		}
	}
	if exec.Command("sh", "-c", "[ ! -e /dev/fd/3 ] && [ ! -e /dev/fd/4 ]").Run() != nil {
		fmt.Println("children have the sockets open")
	}
	for _, listener := range listeners {
		fmt.Println(listener.Addr())
	}
	for _, listener := range listeners {
		if conn, err := listener.Accept(); err == nil {
			fmt.Fprint(conn, listener.Addr())
			conn.Close()
		}
		listener.Close()
	}
	os.Exit(0)
}

// startChild starts a child that inherits files, with these variables. A dollar sign
// in them is for the shell: $$ is the child's process.
func startChild(t *testing.T, files []*os.File, variables string) *rig.Process {
	t.Helper()
	if files == nil {
		variables += "; exec 3<&-" // The test itself may have inherited something.
	}
	cmd := exec.Command("sh", "-c", "export "+variables+`; exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), "INHERIT=1", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = files
	output := rig.NewOutput()
	return rig.Start(t, cmd, output, output)
}

// fileOf returns the file of a listener that a child is to inherit.
func fileOf(t *testing.T, listener interface {
	File() (*os.File, error)
	Close() error
}) *os.File {
	t.Helper()
	file, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		file.Close()
		listener.Close()
	})
	return file
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// A child serves what it inherits. It removes no file of a Unix socket, and ends no
// connection that waits: the next child accepts it.
func TestInherited(t *testing.T) {
	folder, err := os.MkdirTemp("", "inherit") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(folder, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	tcp := listenTCP(t)
	files := []*os.File{fileOf(t, tcp), fileOf(t, unix)}
	addresses := []net.Addr{tcp.Addr(), unix.Addr()}
	var waiting [2][2]net.Conn // by the child that answers, and by the socket
	for i := range waiting {
		for j, address := range addresses {
			if waiting[i][j], err = net.Dial(address.Network(), address.String()); err != nil {
				t.Fatal(err)
			}
			defer waiting[i][j].Close()
			waiting[i][j].SetDeadline(time.Now().Add(rig.Deadline))
		}
	}
	want := fmt.Sprintf("%s\n%s\n", addresses[0], addresses[1])
	for i := range waiting {
		p := startChild(t, files, "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b")
		if status := p.Wait(t); status != 0 || p.Stdout.String() != want {
			t.Errorf("exit status %d; it says %q, want %q", status, p.Stdout, want)
		}
		for j, conn := range waiting[i] {
			if got, err := io.ReadAll(conn); string(got) != addresses[j].String() || err != nil {
				t.Errorf("child %d answers %q over %s, error %v", i, got, addresses[j], err)
			}
		}
	}
}

// Sockets for another process are none, and sockets that do not listen are refused.
func TestOtherSockets(t *testing.T) {
	listener := listenTCP(t)
	file := fileOf(t, listener)
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	connected, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	datagram, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	const refusal = " of %d (LISTEN_FDS) does not listen; the socket unit needs ListenStream=, and Accept=no\n"
	for _, test := range []struct {
		files     []*os.File
		variables string
		want      string
	}{
		{[]*os.File{file}, "LISTEN_PID=1 LISTEN_FDS=1", "children have the sockets open\n"},
		{[]*os.File{file}, "LISTEN_FDS=1", "children have the sockets open\n"},
		{nil, "LISTEN_PID=$$ LISTEN_FDS=0", ""},
		{nil, "LISTEN_PID=$$ LISTEN_FDS=x", `LISTEN_FDS: want the number of inherited sockets (got "x")` + "\n"},
		{nil, "LISTEN_PID=$$ LISTEN_FDS=-1", `LISTEN_FDS: want the number of inherited sockets (got "-1")` + "\n"},
		{[]*os.File{connected}, "LISTEN_PID=$$ LISTEN_FDS=1", "inherited socket 1" + fmt.Sprintf(refusal, 1)},
		{[]*os.File{file, fileOf(t, datagram)}, "LISTEN_PID=$$ LISTEN_FDS=2",
			"inherited socket 2" + fmt.Sprintf(refusal, 2)},
	} {
		p := startChild(t, test.files, test.variables)
		p.Wait(t)
		if got := p.Stdout.String(); got != test.want && !strings.HasPrefix(test.want, "children") ||
			!strings.HasPrefix(got, test.want) {
			t.Errorf("%s: it says %q, want %q", test.variables, got, test.want)
		}
	}
}
