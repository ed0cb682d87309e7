package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// nginxConfig is a configuration for an nginx of one process that writes only to
// one folder. %[1]s is the folder, %[2]s the contents of the http block.
const nginxConfig = `
%[3]s
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
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

// StartNginx starts an nginx and waits until it listens on address. It keeps its
// files in folder; http is the contents of its http block. modules are file names of
// Debian's folder of modules.
func StartNginx(t testing.TB, folder, http, address string, modules ...string) *Process {
	t.Helper()
	config := filepath.Join(folder, "nginx.conf")
	var load string
	for _, name := range modules {
		load += "load_module /usr/lib/nginx/modules/" + name + ";\n"
	}
	if err := os.WriteFile(config, fmt.Appendf(nil, nginxConfig, folder, http, load), 0o600); err != nil {
		t.Fatal(err)
	}
	output := NewOutput()
	p := Start(t, exec.Command("nginx", "-c", config), output, output)
	p.WaitListening(t, address)
	return p
}
