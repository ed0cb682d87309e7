//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// enter runs the rest of a test in a network of its own: inside returns true there, and
// false outside, when the test has ended inside. There, /etc/resolv.conf has resolv, no
// name is in /etc/hosts, and 10.99.0.2 to 10.99.0.7 are addresses of machines that never
// answer: their packets leave by the veth pair and arrive nowhere.
func enter(t *testing.T, resolv string) (inside bool) {
	t.Helper()
	const marker = "E2E_INSIDE"
	if os.Getenv(marker) == t.Name() {
		return true
	}
	t.Parallel()
	folder := t.TempDir()
	for name, text := range map[string]string{
		"resolv.conf": resolv, "hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "hosts: files dns\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	const script = `
set -euo pipefail
folder=$1 outside=$2
shift 2
[ "$(readlink /proc/self/ns/net)" != "$outside" ]
for name in resolv.conf hosts nsswitch.conf; do
	[ ! -e "/etc/$name" ] || mount --bind "$folder/$name" "/etc/$name"
done
ip link set lo up
ip link add pair0 type veth peer name pair1
ip link set pair1 up
ip link set pair0 up
ip address add 10.99.0.1/24 dev pair0
for i in 2 3 4 5 6 7; do
	ip neighbour add "10.99.0.$i" lladdr "02:00:00:00:00:0$i" dev pair0
done
exec "$@"
`
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--net", "--mount", "--", "bash", "-c", script, "bash",
		folder, outside, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=2m")
	if os.Getuid() != 0 {
		cmd.Args = append([]string{"unshare", "--map-root-user"}, cmd.Args[1:]...)
	}
	cmd.Env = append(os.Environ(), marker+"="+t.Name())
	text, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(text, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a network of its own: %v\n%s", err, text)
	}
	return false
}

// startNames starts dnsmasq on 127.0.0.2. It has the records of args and, for all other
// names in test, that there are none.
func startNames(t *testing.T, args ...string) {
	t.Helper()
	output := rig.NewOutput()
	rig.Start(t, exec.Command("dnsmasq", append([]string{"--keep-in-foreground", "--log-facility=-", "--pid-file",
		"--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.2", "--bind-interfaces",
		"--local=/test/"}, args...)...), output, output)
	output.WaitLine(t, 0, "dnsmasq[") // [pid]: started
}

// silent is a name server that receives questions and answers none.
func silent(t *testing.T, address string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
}

// within returns how long the daemon takes to end a flush with a line that begins with
// want.
func within(t *testing.T, d *rig.Daemon, output *rig.Output, want string) time.Duration {
	t.Helper()
	began := time.Now()
	d.Signal(t, syscall.SIGUSR2)
	for time.Since(began) < 90*time.Second {
		for line := range strings.Lines(output.String()) {
			if strings.HasPrefix(line, want) && strings.HasSuffix(line, "\n") {
				return time.Since(began)
			}
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("no line begins with %q; the output is:\n%s%s", want, d.Stdout, d.Stderr)
	return 0
}

// port returns the port of an application.
func port(received *rig.Endpoint) string {
	_, port, _ := net.SplitHostPort(received.Address)
	return port
}

// With a dead first name server, each search domain costs 5 seconds. The counts arrive
// all the same.
func TestSearchDomains(t *testing.T) {
	if !enter(t, "nameserver 127.0.0.3\nnameserver 127.0.0.2\nsearch one.test two.test three.test\n") {
		return
	}
	startNames(t, "--host-record=app.three.test,127.0.0.1")
	silent(t, "127.0.0.3")
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://app:" + port(received)})
	d.Hit(t, "a")
	took := within(t, d, d.Stdout, "--- flushed ---")
	if took < 14*time.Second {
		t.Errorf("the flush took %v, so no name server was dead", took)
	}
	t.Logf("the flush took %v", took)
}

// Kubernetes has a name looked up in each of its search domains first.
func TestNdots(t *testing.T) {
	if !enter(t, "nameserver 127.0.0.3\nnameserver 127.0.0.2\n"+
		"search default.svc.cluster.test svc.cluster.test cluster.test\noptions ndots:5\n") {
		return
	}
	startNames(t, "--host-record=app.example.test,127.0.0.1")
	silent(t, "127.0.0.3")
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://app.example.test:" + port(received)})
	d.Hit(t, "a")
	if took := within(t, d, d.Stdout, "--- flushed ---"); took < 19*time.Second {
		t.Errorf("the flush took %v, so no name server was dead", took)
	}
}

// Where no name server answers, or a name does not exist, the message speaks of the name.
func TestNamesThatAreNotFound(t *testing.T) {
	if !enter(t, "nameserver 127.0.0.3\n") {
		return
	}
	silent(t, "127.0.0.3")
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://app.example.test/"})
	within(t, d, d.Stderr, "--- cannot connect to endpoint : getaddrinfo EAI_AGAIN app.example.test: ")
	if err := os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	startNames(t)
	d = rig.StartDaemon(t, map[string]any{"endpoint": "http://app.example.test/"})
	within(t, d, d.Stderr, "--- cannot connect to endpoint : getaddrinfo ENOTFOUND app.example.test\n")
}

// Five of six addresses are dead: the sixth is reached within seconds. If all are dead,
// a flush ends 10 seconds after the last attempt has begun.
func TestDeadAddresses(t *testing.T) {
	if !enter(t, "nameserver 127.0.0.2\n") {
		return
	}
	dead := "10.99.0.2,10.99.0.3,10.99.0.4,10.99.0.5,10.99.0.6"
	var records []string
	for address := range strings.SplitSeq(dead+",127.0.0.1", ",") {
		records = append(records, "--host-record=app.test,"+address)
	}
	for address := range strings.SplitSeq(dead, ",") {
		records = append(records, "--host-record=dead.test,"+address)
	}
	startNames(t, records...)
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://app.test:" + port(received)})
	d.Hit(t, "a")
	if took := within(t, d, d.Stdout, "--- flushed ---"); took > 5*time.Second {
		t.Errorf("the flush took %v", took)
	}
	if got := sum(rig.Counts[int64](t, received.Body(t))); got != 1 {
		t.Errorf("%d hits arrive, want 1", got)
	}
	d = rig.StartDaemon(t, map[string]any{"endpoint": "http://dead.test:" + port(received)})
	took := within(t, d, d.Stderr, "--- cannot connect to endpoint : connect ETIMEDOUT 10.99.0.")
	if took < 11*time.Second || took > 15*time.Second {
		t.Errorf("the flush took %v, want 11 seconds", took)
	}
}

// A name server or a firewall may drop questions with EDNS0. The way out is in the table
// of differences.
func TestWithoutEDNS0(t *testing.T) {
	if !enter(t, "nameserver 127.0.0.4\noptions timeout:1 attempts:1\n") {
		return
	}
	startNames(t, "--host-record=app.test,127.0.0.1")
	dropper, err := net.ListenPacket("udp", "127.0.0.4:53")
	if err != nil {
		t.Fatal(err)
	}
	defer dropper.Close()
	go func() {
		question := make([]byte, 1500)
		for {
			n, from, err := dropper.ReadFrom(question)
			if err != nil {
				return
			}
			if n < 12 || question[11] != 0 { // it has additional records: EDNS0
				continue
			}
			to, err := net.Dial("udp", "127.0.0.2:53")
			if err != nil {
				return
			}
			to.Write(question[:n])
			answer := make([]byte, 1500)
			if n, err := to.Read(answer); err == nil {
				dropper.WriteTo(answer[:n], from)
			}
			to.Close()
		}
	}()
	received := rig.NewEndpoint(t)
	settings := map[string]any{"endpoint": "http://app.test:" + port(received)}
	d := rig.StartDaemon(t, settings)
	within(t, d, d.Stderr, "--- cannot connect to endpoint : getaddrinfo EAI_AGAIN app.test: ")
	t.Setenv("GODEBUG", "netedns0=0")
	d = rig.StartDaemon(t, settings)
	within(t, d, d.Stdout, "--- flushed ---")
}

// The system gets another authority while the daemon runs. The next flush is delivered.
func TestAuthorityThatIsAdded(t *testing.T) {
	if !enter(t, "") {
		return
	}
	// The real folder stays as it is outside.
	if err := syscall.Mount("none", "/etc/ssl/certs", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	write := func(of *rig.Identity) {
		if err := os.WriteFile("/etc/ssl/certs/ca-certificates.crt", []byte(rig.CertificatesPEM(of)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(rig.Issue(t, "another", nil))
	authority := rig.Issue(t, "authority", nil)
	certificate := rig.Issue(t, "application", authority)
	application := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	application.Config.ErrorLog = log.New(io.Discard, "", 0)
	application.TLS = &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{certificate.Certificate.Raw}, PrivateKey: certificate.Key,
	}}}
	application.StartTLS()
	defer application.Close()
	d := rig.StartDaemon(t, map[string]any{"endpoint": application.URL})
	within(t, d, d.Stderr, "--- cannot connect to endpoint : tls: failed to verify certificate: x509: "+
		"certificate signed by unknown authority")
	write(authority)
	within(t, d, d.Stdout, "--- flushed ---")
	d.Stop(t)
}

// Apache answers 400 to a Host with the zone of an IPv6 address. The daemon connects to
// the zone, and sends Host without it.
func TestZone(t *testing.T) {
	if !enter(t, "") {
		return
	}
	address := ""
	for limit := time.Now().Add(rig.Deadline); address == ""; <-time.After(50 * time.Millisecond) {
		text, err := exec.Command("ip", "-6", "address", "show", "dev", "pair0", "scope", "link", "-tentative").Output()
		if err != nil || time.Now().After(limit) {
			t.Fatalf("the interface has no IPv6 address (%v)", err)
		}
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			for i, field := range fields {
				if field == "inet6" {
					address, _, _ = strings.Cut(fields[i+1], "/")
				}
			}
		}
	}
	folder := startApache(t, "["+address+"%pair0]:8080")
	answer := func(host string) string {
		conn, err := net.Dial("tcp", "["+address+"%pair0]:8080")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /save HTTP/1.1\r\nHost: %s\r\nContent-Length: 0\r\n\r\n", host)
		line := make([]byte, 12)
		conn.SetReadDeadline(time.Now().Add(rig.Deadline))
		conn.Read(line)
		return string(line)
	}
	if got := answer("[" + address + "%pair0]:8080"); got != "HTTP/1.1 400" {
		t.Errorf("Apache answers %s to a Host with a zone, so this test shows nothing", got)
	}
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://[" + address + "%25pair0]:8080/save"})
	d.Hit(t, "a")
	within(t, d, d.Stdout, "--- flushed ---")
	log, err := os.ReadFile(filepath.Join(folder, "access.log"))
	if want := "[" + address + "]:8080 POST /save 200\n"; err != nil || !strings.Contains(string(log), want) {
		t.Errorf("Apache's log is\n%s(error %v), want %s", log, err, want)
	}
	d.Stop(t)
}

// startApache starts an Apache that accepts a POST to /save, and logs the Host of each
// request. It returns the folder of its files.
func startApache(t *testing.T, listen string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	config := fmt.Sprintf(`
ServerName application
ServerRoot %[1]s
PidFile %[1]s/pid
ErrorLog %[1]s/error.log
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
Listen %[2]s
DocumentRoot %[1]s/www
LogFormat "%%{Host}i %%r %%>s" host
CustomLog %[1]s/access.log "%%{Host}i %%m %%U %%>s"
`, folder, listen)
	for name, text := range map[string]string{"www/save": "saved", "apache.conf": config} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	output := rig.NewOutput()
	// With -X there is one process. Otherwise, others would outlive it.
	apache := exec.Command("apache2", "-X", "-f", filepath.Join(folder, "apache.conf"))
	p := rig.Start(t, apache, output, output)
	p.WaitListening(t, listen)
	return folder
}
