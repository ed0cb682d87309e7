package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// around is what the configuration of an nginx stands in: one process, with all
// that it writes in one folder.
const around = `
daemon off;
master_process off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events {}
http {
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	%[2]s
}
`

// StartNginx starts an nginx that has folder for its files and http in its http
// block, and waits until it listens at address.
func StartNginx(t testing.TB, folder, http, address string) *Process {
	t.Helper()
	config := filepath.Join(folder, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, around, folder, http), 0o600); err != nil {
		t.Fatal(err)
	}
	output := NewOutput()
	p := Start(t, exec.Command("nginx", "-c", config), output, output)
	p.WaitListening(t, address)
	return p
}

// WaitListening waits until the process listens at address.
func (p *Process) WaitListening(t testing.TB, address string) {
	t.Helper()
	for limit := time.Now().Add(Deadline); ; <-time.After(time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%v does not listen; it says:\n%s%s", p.Cmd.Args, p.Stdout, p.Stderr)
		}
	}
}
