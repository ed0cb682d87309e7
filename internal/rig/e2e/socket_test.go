//go:build unix

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// wsgi is an application for gunicorn. It appends a line to a file for each request.
const wsgi = `
def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()
    with open("received", "a") as file:
        print(environ["HTTP_HOST"], environ["PATH_INFO"], body, file=file)
    start_response("204 No Content", [])
    return []
`

// An application server listens on a Unix socket, as nginx would pass requests on to it.
func TestEndpointOverASocket(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "socket") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.WriteFile(filepath.Join(folder, "hits.py"), []byte(wsgi), 0o644); err != nil {
		t.Fatal(err)
	}
	gunicorn := exec.Command("gunicorn", "--bind", "unix:"+folder+"/app.sock", "--workers", "2", "hits")
	gunicorn.Dir = folder
	output := rig.NewOutput()
	rig.StartGroup(t, gunicorn, output, output)
	for limit := time.Now().Add(rig.Deadline); ; <-time.After(20 * time.Millisecond) {
		if _, err := os.Stat(folder + "/app.sock"); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("gunicorn does not listen:\n%s", output)
		}
	}
	endpoint := "http://unix:" + folder + "/app.sock:/save_hits?from="
	d := rig.StartDaemon(t, map[string]any{"endpoint": endpoint + "pixel", "secret": "s"})
	if want := "Flushing hits to " + endpoint + "xxxxx\n"; !strings.HasPrefix(d.Stdout.String(), want) {
		t.Errorf("the daemon announces %s, want %s", d.Stdout, want)
	}
	d.Hit(t, "a", "a", "b")
	d.Stop(t)
	received, err := os.ReadFile(filepath.Join(folder, "received"))
	const want = "localhost /save_hits json=%7B%22a%22%3A2%2C%22b%22%3A1%7D&secret=s\n"
	if err != nil || string(received) != want {
		t.Errorf("the application received\n%s(error %v), want\n%s", received, err, want)
	}
}

// A site that has moved to https redirects with 308. The daemon says where to, but shows
// no secret.
func TestRedirect(t *testing.T) {
	t.Parallel()
	address := "127.0.0.1:" + rig.FreePort(t)
	server := "server { listen " + address + "; return 308 https://www.example.com$request_uri; }"
	rig.StartNginx(t, t.TempDir(), server, address)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + address + "/save_hits?token=hunter2"})
	d.Hit(t, "a")
	d.Signal(t, syscall.SIGUSR2)
	d.Stderr.WaitLine(t, 0, "pixel-ping: ")
	config := d.Cmd.Args[len(d.Cmd.Args)-1]
	if got, want := d.Stderr.String(), "--- flush failed with code:308\npixel-ping: "+config+": the application redirects to "+
		"https://www.example.com/save_hits, which is not followed; \"endpoint\" may have to be that\n"; got != want {
		t.Errorf("the daemon says\n%s, want\n%s", got, want)
	}
}
