package bench

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// names are the servers, in the order of the tables.
var names = []string{"this", "original", "Express", "nginx"}

// A server is one of them, running.
type server struct {
	*rig.Process
	url    string // up to the path
	prefix string // of a target, before the key
}

// start starts a server on a free port and returns it with the time from the
// start of the process to its first answer. With certificate, a folder with
// cert.pem and key.pem, it serves HTTPS. nginx makes room for that many
// connections at its start.
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

// command returns what starts a server.
func command(t *testing.T, name, port, certificate string, connections int) *exec.Cmd {
	t.Helper()
	key, cert := filepath.Join(certificate, "key.pem"), filepath.Join(certificate, "cert.pem")
	switch name {
	case "this", "original":
		settings := map[string]any{"host": "127.0.0.1", "port": port, "interval": 86400}
		if certificate != "" {
			settings["sslkey"], settings["sslcert"] = key, cert
		}
		if name == "this" {
			return exec.Command(rig.Binary, rig.WriteConfig(t, settings))
		}
		if certificate != "" {
			settings["sslca"] = cert // without it, the original serves plain HTTP
		}
		return exec.Command("node", filepath.Join(original, "bin", "pixel-ping"), rig.WriteConfig(t, settings))
	case "Express":
		cmd := exec.Command("node", "express.js", port)
		if certificate != "" {
			cmd.Args = append(cmd.Args, key, cert)
		}
		cmd.Env = append(os.Environ(), "NODE_PATH="+express, "NODE_ENV=production")
		return cmd
	case "nginx":
		folder := t.TempDir()
		ssl := ""
		if certificate != "" {
			ssl = "ssl; ssl_certificate " + cert + "; ssl_certificate_key " + key
		}
		// One process, as the others are; its log has what they count.
		conf := fmt.Sprintf(`daemon off; master_process off; pid nginx.pid; error_log error.log;
			worker_rlimit_nofile 20000;
			events { worker_connections %d; }
			http {
				log_format key '$arg_key';
				access_log access.log key buffer=64k flush=1s;
				keepalive_requests 1000000;
				ssl_protocols TLSv1.2 TLSv1.3; # as the others have it
				server { listen 127.0.0.1:%s %s; location = /pixel.gif { empty_gif; } }
			}`, connections, port, ssl)
		if err := os.WriteFile(filepath.Join(folder, "nginx.conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command("nginx", "-p", folder, "-c", "nginx.conf", "-e", "error.log")
	}
	t.Fatalf("there is no server %q", name)
	return nil
}

// end ends the server at once.
func (s *server) end(t *testing.T) {
	s.Cmd.Process.Kill()
	s.Wait(t)
}

// cpu returns the processor time that the system has accounted to the process,
// in all and for what the kernel did. It counts in hundredths of a second.
func (s *server) cpu(t *testing.T) (all, kernel time.Duration) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The name, in parentheses, may have spaces; the 14th and 15th field count.
	fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	return time.Duration(user+system) * tick, time.Duration(system) * tick
}

// memory returns the bytes that are resident now, and the most that ever were.
func (s *server) memory(t *testing.T) (now, peak float64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kilobytes); err == nil {
			now = kilobytes * 1024
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kilobytes); err == nil {
			peak = kilobytes * 1024
		}
	}
	return now, peak
}

// hit makes one request over a connection and reads the answer, which is small
// enough to come as one piece.
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
		if strings.HasSuffix(read, ";") { // the last byte of the GIF
			return nil
		}
	}
}

func (s *server) dial() (net.Conn, error) {
	return net.Dial("tcp", s.url[strings.LastIndex(s.url, "/")+1:])
}
