package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// nginx is the front end, with a recipe.
type nginx struct {
	address string // host:port, TLS
	folder  string // with the log of the hits, pixel-ping.log
	roots   *x509.CertPool
	process *rig.Process
}

// startNginx starts nginx with a recipe in which the certificate, the port and
// the folder of the log are replaced, and what else is named in pairs: as whoever
// follows the recipe would do it.
func startNginx(t *testing.T, recipe string, pairs ...string) *nginx {
	t.Helper()
	port := rig.FreePort(t)
	n := &nginx{address: "127.0.0.1:" + port, folder: t.TempDir()}
	n.roots = rig.WriteCertificate(t, n.folder)
	file, err := os.ReadFile(recipe)
	if err != nil {
		t.Fatal(err)
	}
	text := string(file)
	pairs = append(pairs,
		"listen 443 ", "listen 127.0.0.1:"+port+" ",
		"listen [::]:443 ", "listen [::1]:"+port+" ",
		"/etc/letsencrypt/live/pixels.example.com/fullchain.pem", n.folder+"/cert.pem",
		"/etc/letsencrypt/live/pixels.example.com/privkey.pem", n.folder+"/key.pem",
	)
	for pair := range slices.Chunk(pairs, 2) {
		if strings.Count(text, pair[0]) != 1 {
			t.Fatalf("%s does not have %q once", recipe, pair[0])
		}
		text = strings.ReplaceAll(text, pair[0], pair[1])
	}
	text = strings.ReplaceAll(text, "/var/log/nginx", n.folder)
	n.createLog(t)
	n.process = rig.StartNginx(t, n.folder, text, n.address)
	return n
}

// createLog runs the command of the recipe that creates the log of the hits. The
// recipe runs it before nginx -t, which creates the log, too.
func (n *nginx) createLog(t *testing.T) {
	t.Helper()
	readme, err := os.ReadFile("../../../testdata/recipes/nginx/README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(readme), "# nginx -t")
	_, command, _ := strings.Cut(before, "# install -m 640 ")
	command, _, found := strings.Cut(command, "\n")
	if !found {
		t.Fatal("the README does not create the log before nginx -t")
	}
	command = strings.NewReplacer("-g adm ", "", "/var/log/nginx", n.folder).Replace("install -m 640 " + command)
	if text, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, text)
	}
}

// dial connects over TLS.
func (n *nginx) dial() (*tls.Conn, error) {
	return tls.Dial("tcp", n.address, &tls.Config{RootCAs: n.roots})
}

// ask sends one request, with a target as it stands, and returns the status.
func (n *nginx) ask(t *testing.T, method, target, more string) int {
	t.Helper()
	conn, err := n.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: pixels.example.com\r\nConnection: close\r\n%s\r\n", method, target, more)
	answer, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer.StatusCode
}

// target returns the target of a key's pixel.
func target(key string) string { return "/pixel.gif?key=" + url.QueryEscape(key) }

// readAnswer reads an answer to its end.
func readAnswer(r *bufio.Reader) (*http.Response, error) {
	answer, err := http.ReadResponse(r, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
	}
	return answer, err
}

// line is what the recipe logs of a hit.
type line struct {
	Time                                time.Time
	Address, Agent, Key, Method, Target string
	Status                              int
}

// log waits for that many lines of the log, and returns what is in it.
func (n *nginx) log(t *testing.T, name string, want int) (lines []line) {
	t.Helper()
	for limit := time.Now().Add(rig.Deadline); ; {
		text, err := os.ReadFile(filepath.Join(n.folder, name))
		if err == nil && strings.Count(string(text), "\n") >= want {
			for text := range strings.Lines(string(text)) {
				var l line
				if err := json.Unmarshal([]byte(text), &l); err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				lines = append(lines, l)
			}
			return lines
		}
		if time.Now().After(limit) {
			t.Fatalf("the log does not have %d lines, %v:\n%s", want, err, text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// relay passes connections on, and counts them.
func relay(t *testing.T, to string) (address string, accepted *atomic.Int64) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	accepted = new(atomic.Int64)
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			conn, err := net.Dial("tcp", to)
			if err != nil {
				from.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{from, conn}, {conn, from}} {
				go func() {
					io.Copy(pair[0], pair[1])
					pair[0].Close()
				}()
			}
		}
	}()
	return listener.Addr().String(), accepted
}

// Each hit is a line of the log, with who made it and when, and the log has the
// counts; it goes on when it is rotated. The connections to the daemon are kept.
func TestFrontLogsWhatIsCounted(t *testing.T) {
	t.Parallel()
	received := rig.NewEndpoint(t)
	d := startDaemon(t, map[string]any{"endpoint": "http://" + received.Address})
	address, connections := relay(t, d.address)
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf", "127.0.0.1:9187", address)
	began := time.Now().Truncate(time.Second)

	keys := []string{
		"article-42", "ü", "日本", "🙂", `"`, `\`, `"}`, "\x00", "\n", "\x1b", "\x7f", "a b", "a+b", "a&b", "a=b", "a#b", "a?b", "%41", "a,b",
		"__proto__", `{"event":"click","at":[1,2.5]}`, "0", "-", strings.Repeat("x", 12000),
	}
	const clients, rounds = 8, 10
	var loads sync.WaitGroup
	for client := range clients {
		loads.Go(func() {
			conn, err := n.dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(rig.Deadline))
			r := bufio.NewReader(conn)
			for range rounds {
				for i, key := range keys {
					// The agent says which key it is; that of an attacker may be any.
					fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUser-Agent: %d \"\\\xff\x01 %d\r\n\r\n", target(key), i, client)
					if answer, err := readAnswer(r); err != nil || answer.StatusCode != 200 {
						t.Errorf("%.50q: %v, %v", key, answer, err)
						return
					}
				}
			}
		})
	}
	loads.Wait()
	n.log(t, "pixel-ping.log", clients*rounds*len(keys))
	if info, err := os.Stat(n.folder + "/pixel-ping.log"); err != nil {
		t.Error(err)
	} else if got := info.Mode().Perm(); got != 0o640 {
		t.Errorf("the log, which holds addresses, has the mode %o, want 640", got)
	}
	// As logrotate does it, and nginx after it.
	if err := os.Rename(n.folder+"/pixel-ping.log", n.folder+"/pixel-ping.log.1"); err != nil {
		t.Fatal(err)
	}
	n.process.Signal(t, syscall.SIGUSR1)
	n.log(t, "pixel-ping.log", 0)
	for _, c := range []struct{ method, target, more string }{
		{"HEAD", "/pixel.gif?key=head", ""},
		{"POST", "/pixel.gif?key=beacon", "Content-Length: 4\r\n\r\ndata"},
		{"GET", "/pixel.gif", ""},
		{"GET", "/pixel.gif?key=", ""},
		{"GET", "/pixel.gif?other&key=raw\"{}|&x=%zz", ""},
		{"GET", "/pixel.gif?key=cookie", "Cookie: " + strings.Repeat("x", 15000) + "\r\n"},
	} {
		if status := n.ask(t, c.method, c.target, c.more); status != 200 {
			t.Errorf("%s %s: status %d", c.method, c.target, status)
		}
	}
	overHTTP2 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: n.roots}, ForceAttemptHTTP2: true}}
	request, err := http.NewRequest("GET", "https://"+n.address+target("HTTP/2"+strings.Repeat("x", 12000)), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("User-Agent", "")
	answer, err := overHTTP2.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 200 || answer.ProtoMajor != 2 {
		t.Errorf("over HTTP/2: %s %s", answer.Proto, answer.Status)
	}
	// A page that goes away does not wait for the answer.
	const gone = 20
	for range gone {
		conn, err := n.dial()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /pixel.gif?key=gone HTTP/1.1\r\nHost: x\r\n\r\n")
		conn.NetConn().Close()
	}
	lines := n.log(t, "pixel-ping.log", 7+gone)
	lines = append(n.log(t, "pixel-ping.log.1", 0), lines...)

	logged := make(map[string]int64)
	for _, l := range lines {
		if l.Status != 200 || l.Address != "127.0.0.1" || l.Time.Before(began) || l.Time.After(time.Now()) {
			t.Errorf("logged: %+v", l)
		}
		if _, query, _ := strings.Cut(l.Target, "?"); !strings.Contains("&"+query, "&key="+l.Key) && l.Key != "" {
			t.Errorf("the target %.300q does not have the key %.300q", l.Target, l.Key)
		}
		key, err := url.QueryUnescape(l.Key)
		if err != nil {
			t.Error(err)
		}
		var i, client int
		if l.Agent != "" {
			if _, err := fmt.Sscanf(l.Agent, "%d \"\\\ufffd\x01 %d", &i, &client); err != nil || keys[i] != key {
				t.Errorf("the agent %q hit %.50q, %v", l.Agent, key, err)
			}
		}
		if key != "" {
			logged[key]++
		}
	}
	d.stop(t)
	form, err := url.ParseQuery(received.Body(t))
	if err != nil {
		t.Fatal(err)
	}
	counted := make(map[string]int64)
	if err := json.Unmarshal([]byte(form.Get("json")), &counted); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(logged, counted) {
		for key := range counted {
			if logged[key] != counted[key] {
				t.Errorf("%.50q: %d lines, counted %d times", key, logged[key], counted[key])
			}
		}
		t.Errorf("%d keys are logged, and %d counted", len(logged), len(counted))
	}
	if got := connections.Load(); got > 2*clients {
		t.Errorf("%d connections to the daemon for %d clients", got, clients)
	}
}

// Only the pixel is passed on, its target byte by byte as the client wrote it,
// and nothing else of the client.
func TestFrontPassesThePixelOn(t *testing.T) {
	t.Parallel()
	received := make(chan *http.Request, 100)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { received <- r }))
	defer behind.Close()
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf", "127.0.0.1:9187", behind.Listener.Addr().String())
	for _, path := range []string{"/", "/pixel.gif/", "/pixel.giff", "/PIXEL.GIF", "/a/pixel.gif", "/?/pixel.gif", "/index.html", "/pixel%2egif%00", "//x/pixel.gif"} {
		if status := n.ask(t, "GET", path, ""); status != 404 && status != 400 {
			t.Errorf("%s: status %d", path, status)
		}
	}
	select {
	case r := <-received:
		t.Fatalf("%s is passed on", r.RequestURI)
	default:
	}
	for _, query := range []string{"", "?", "?key=a", "?key=%61+%2B%2f%2F%00%zz", "?key=a%20b&key=c&KEY=d", "?x&&key==?/../'\"<>[]{}|\\^`", "?key=http://x/%2e%2e//", "?key=\xc3\xbc"} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			if status := n.ask(t, method, "/pixel.gif"+query, "Cookie: personal\r\nUser-Agent: personal\r\nReferer: personal\r\nX-Any: personal\r\n"); status != 200 {
				t.Errorf("%s %s: status %d", method, query, status)
				continue
			}
			r := <-received
			if r.RequestURI != "/pixel.gif"+query || r.Method != method {
				t.Errorf("%s %s is passed on as %s %s", method, query, r.Method, r.RequestURI)
			}
			if text := fmt.Sprint(r.Header); strings.Contains(text, "personal") {
				t.Errorf("passed on: %s", text)
			}
		}
	}
}
