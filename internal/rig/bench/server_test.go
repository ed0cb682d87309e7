//go:build unix

package bench

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// names are the servers in the order of a table's rows.
var names = []string{"this", "original", "Express", "nginx"}

// The names of this server with other settings, in tables of their own.
const (
	withJournal     = "this with a journal"
	withoutEndpoint = "this without an endpoint"
	withJournalOnly = "this with a journal, without an endpoint"
)

// nodeKeepAlive is the time after which Node's HTTP server closes an idle
// connection at the earliest.
const nodeKeepAlive = 5 * time.Second

// server is a running server.
type server struct {
	*rig.Process
	url    string // the address without a path
	prefix string // the target of a hit without the key
}

// nginxHTTP2 is the name of an nginx that offers HTTP/2 over TLS.
const nginxHTTP2 = "nginx with HTTP/2"

// start starts a server on a free port. It returns the server and the time from the
// start of the process to the first answer. The server serves HTTPS if certificate
// is the path of a folder with cert.pem and key.pem, and HTTP if it is "". Only
// nginx has to know the number of connections.
func start(t *testing.T, name, certificate string, connections int) (*server, time.Duration) {
	t.Helper()
	s := &server{url: "http://127.0.0.1:" + rig.FreePort(t), prefix: "/pixel.gif?key="}
	if certificate != "" {
		s.url = strings.Replace(s.url, "http", "https", 1)
	}
	began := time.Now()
	s.Process = rig.StartCommand(t, command(t, name, s.url[strings.LastIndex(s.url, ":")+1:], certificate, connections))
	if name == "Express" {
		s.prefix = "/"
	}
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	for {
		answer, err := client.Get(s.url + s.prefix + "first")
		if err == nil && answer.StatusCode == 200 {
			answer.Body.Close()
			return s, time.Since(began)
		}
		if time.Since(began) > rig.Deadline {
			t.Fatalf("%s does not serve: %v", name, err)
		}
		<-time.After(time.Millisecond)
	}
}

// command returns the command that starts a server.
func command(t *testing.T, name, port, certificate string, connections int) *exec.Cmd {
	t.Helper()
	key, cert := filepath.Join(certificate, "key.pem"), filepath.Join(certificate, "cert.pem")
	switch name {
	case "this", "original", withJournal:
		settings := map[string]any{"host": "127.0.0.1", "port": port, "interval": 86400}
		if certificate != "" {
			settings["sslkey"], settings["sslcert"] = key, cert
		}
		if name == withJournal {
			settings["journal"] = filepath.Join(t.TempDir(), "journal")
		}
		if name != "original" {
			if connections > 6000 { // more than the default, and what nginx needs for as many
				settings["maxconnections"] = connections
			}
			return exec.Command(rig.Binary, rig.WriteConfig(t, settings))
		}
		if certificate != "" {
			settings["sslca"] = cert // without sslca, the original serves plain HTTP
		}
		return exec.Command("node", filepath.Join(original, "bin", "pixel-ping"), rig.WriteConfig(t, settings))
	case "Express":
		cmd := exec.Command("node", "express.js", port)
		if certificate != "" {
			cmd.Args = append(cmd.Args, key, cert)
		}
		cmd.Env = append(os.Environ(), "NODE_PATH="+express, "NODE_ENV=production")
		return cmd
	case "nginx", nginxHTTP2:
		folder := t.TempDir()
		ssl := ""
		if certificate != "" {
			ssl = "ssl; ssl_certificate " + cert + "; ssl_certificate_key " + key
		}
		if name == nginxHTTP2 {
			ssl = strings.Replace(ssl, "ssl", "ssl http2", 1)
		}
		// nginx has one process, as the others have. Its log takes the place of counting.
		conf := fmt.Sprintf(`daemon off; master_process off; pid nginx.pid; error_log error.log;
			worker_rlimit_nofile 20000;
			events { worker_connections %d; }
			http {
				log_format key '$arg_key';
				access_log access.log key buffer=64k flush=1s;
				keepalive_requests 1000000;
				ssl_protocols TLSv1.2 TLSv1.3; # the versions of the other servers
				server { listen 127.0.0.1:%s %s; location = /pixel.gif { empty_gif; } }
			}`, connections, port, ssl)
		if err := os.WriteFile(filepath.Join(folder, "nginx.conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command("nginx", "-p", folder, "-c", "nginx.conf", "-e", "error.log")
	}
	t.Fatalf("the server %q is unknown", name)
	return nil
}

// end kills the server.
func (s *server) end(t *testing.T) {
	s.Cmd.Process.Kill()
	s.Wait(t)
}

// hit makes one request on a connection and reads the answer.
func (s *server) hit(conn net.Conn, key string) error {
	buffer := make([]byte, 4096)
	if _, err := fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: x\r\n\r\n", s.prefix, key); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(rig.Deadline))
	for read := ""; ; {
		n, err := conn.Read(buffer)
		if err != nil {
			return err
		}
		read += string(buffer[:n])
		if strings.HasSuffix(read, ";") { // the last byte of the GIF, which no header has
			return nil
		}
	}
}

// dial connects to the server.
func (s *server) dial() (net.Conn, error) {
	return net.Dial("tcp", s.url[strings.LastIndex(s.url, "/")+1:])
}
