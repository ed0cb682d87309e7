//go:build unix

package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// application is an application over TLS. Its server is Node's: Go's has no key exchange
// with RSA, for example. It prints its port, and a line for each request.
const application = `
const [folder, options] = process.argv.slice(1), {readFileSync} = require("fs");
const server = require("https").createServer({
  key: readFileSync(folder + "/key.pem"), cert: readFileSync(folder + "/cert.pem"), ...JSON.parse(options),
}, (request, response) => request.resume().on("end", () => {
  console.log("received");
  response.writeHead(204).end();
}));
server.listen(0, "127.0.0.1", () => console.log("port " + server.address().port));
`

// startApplication starts an application with options of Node's tls.createServer. Both
// programs trust its certificate.
func startApplication(t *testing.T, folder, options string) (port string, output *rig.Output) {
	t.Helper()
	t.Setenv("NODE_EXTRA_CA_CERTS", folder+"/cert.pem")
	t.Setenv("SSL_CERT_FILE", folder+"/cert.pem")
	output = rig.NewOutput()
	rig.Start(t, exec.Command("node", "-e", application, folder, options), output, output)
	return strings.TrimPrefix(output.WaitLine(t, 0, "port "), "port "), output
}

// writeCertificate writes cert.pem and key.pem, for an RSA key if isRSA. names are the
// names in the certificate beside its common name, localhost.
func writeCertificate(t *testing.T, isRSA bool, names ...string) (folder string) {
	t.Helper()
	var key crypto.Signer
	var err error
	if isRSA {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	folder = t.TempDir()
	rig.WriteSelfSigned(t, folder, key, x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: names, BasicConstraintsValid: true, IsCA: true,
	})
	return folder
}

// onePacket is a firewall that resets a connection unless its first packet has the whole
// ClientHello. It returns the port on which it passes connections on.
func onePacket(t *testing.T, port string) string {
	t.Helper()
	address := rig.Listen(t, func(from net.Conn) {
		hello := make([]byte, 64<<10)
		n, err := io.ReadAtLeast(from, hello, 5)
		if err != nil || 5+int(hello[3])<<8+int(hello[4]) > 1460 {
			rig.Reset(from)
			return
		}
		to, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return
		}
		defer to.Close()
		to.Write(hello[:n])
		go func() {
			io.Copy(from, to)
			from.Close()
		}()
		io.Copy(to, from)
	})
	_, ours, _ := net.SplitHostPort(address)
	return ours
}

// Node reaches some servers that Go does not. wayOut is a setting of GODEBUG with which
// ours does.
func TestServersThatGoDoesNotReach(t *testing.T) {
	for name, test := range map[string]struct {
		options string
		names   []string // in the certificate
		through func(t *testing.T, port string) string
		want    string
		wayOut  string
	}{
		"servers with old key exchanges": {
			`{"ciphers": "AES256-SHA256:AES128-GCM-SHA256", "maxVersion": "TLSv1.2"}`, []string{"localhost"}, nil,
			"remote error: tls: handshake failure", ""},
		"certificates with a common name only": {`{}`, nil, nil, "tls: failed to verify certificate: x509: " +
			"certificate relies on legacy Common Name field, use SANs instead", ""},
		"firewalls that want a ClientHello of one packet": {`{}`, []string{"localhost"}, onePacket,
			"read ECONNRESET", "tlsmlkem=0"},
	} {
		t.Run(name, func(t *testing.T) {
			if test.wayOut != "" && !strings.Contains(Differences[name], "`GODEBUG="+test.wayOut+"`") {
				t.Errorf("the row does not have the way out, %s:\n%s", test.wayOut, Differences[name])
			}
			port, received := startApplication(t, writeCertificate(t, true, test.names...), test.options)
			if test.through != nil {
				port = test.through(t, port)
			}
			settings := map[string]any{"endpoint": "https://localhost:" + port + "/"}
			flush := func(side string) *side {
				s := startSide(t, side, settings)
				s.Signal(t, syscall.SIGUSR2)
				return s
			}
			flush("original").Stdout.WaitLine(t, 0, "--- flushed ---")
			received.WaitLine(t, 0, "received")
			got := flush("ours").Stderr.WaitLine(t, 0, "--- ")
			if want := "--- cannot connect to endpoint : " + test.want; got != want {
				t.Errorf("ours says %q, want %q", got, want)
			}
			if count := strings.Count(received.String(), "received"); count != 1 {
				t.Errorf("the application received %d requests, want the original's alone", count)
			}
			if test.wayOut != "" {
				t.Setenv("GODEBUG", test.wayOut)
				flush("ours").Stdout.WaitLine(t, 0, "--- flushed ---")
			}
			differ(t, name)
		})
	}
}

// suites is a client that prints the suites of TLS 1.2 that a server accepts.
const suites = `
const tls = require("tls"), port = process.argv[1];
(async () => {
  for (const ciphers of tls.getCiphers().filter((name) => !name.startsWith("tls_")).map((name) => name.toUpperCase())) {
    await new Promise((resolve) => {
      const options = {port, host: "127.0.0.1", rejectUnauthorized: false, ciphers, maxVersion: "TLSv1.2"};
      const socket = tls.connect(options, () => {
        console.log(ciphers);
        socket.destroy();
        resolve();
      }).on("error", resolve);
    });
  }
})();
`

// Visitors find fewer suites of TLS 1.2 here.
func TestSuites(t *testing.T) {
	const name = "suites of TLS 1.2"
	for _, isRSA := range []bool{true, false} {
		folder := writeCertificate(t, isRSA)
		theirs, ours := pair(t, map[string]any{"sslkey": folder + "/key.pem", "sslcert": folder + "/cert.pem"})
		accepted := make(map[string]string)
		for _, s := range []*side{theirs, ours} {
			_, port, _ := net.SplitHostPort(s.Address)
			s.WaitListening(t, s.Address)
			list, err := exec.Command("node", "-e", suites, port).Output()
			if err != nil {
				t.Fatal(err)
			}
			accepted[s.name] = string(list)
		}
		missing := ""
		for suite := range strings.Lines(accepted["original"]) {
			if !strings.Contains("\n"+accepted["ours"], "\n"+suite) {
				missing += " " + strings.TrimSpace(suite)
			}
		}
		want := " ECDHE-ECDSA-AES128-SHA256 ECDHE-ECDSA-AES256-SHA384"
		if isRSA {
			want = " AES128-GCM-SHA256 AES128-SHA AES128-SHA256 AES256-GCM-SHA384 AES256-SHA AES256-SHA256" +
				" ECDHE-RSA-AES128-SHA256 ECDHE-RSA-AES256-SHA384"
		}
		if missing != want {
			t.Errorf("RSA %v: ours has not:%s\nwant:%s", isRSA, missing, want)
		}
	}
	differ(t, name)
}
