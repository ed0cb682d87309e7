//go:build unix

package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"iter"
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

// nginx is a front end that runs with a recipe.
type nginx struct {
	address string // host:port, TLS
	folder  string // the folder of pixel-ping.log, the log of the hits
	roots   *x509.CertPool
	process *rig.Process
}

// startNginx starts nginx with a recipe. In the recipe it replaces the certificate,
// the port, the folder of the log, and each first element of pairs with the second.
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
	_, command, _ := strings.Cut(before, "# touch ")
	command, _, found := strings.Cut(command, " && chgrp adm ")
	if !found {
		t.Fatal("the README does not create the log before nginx -t")
	}
	command = strings.ReplaceAll("touch "+command, "/var/log/nginx", n.folder)
	if text, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, text)
	}
}

// dial connects over TLS.
func (n *nginx) dial() (*tls.Conn, error) {
	return tls.Dial("tcp", n.address, &tls.Config{RootCAs: n.roots})
}

// ask sends one request and returns the status. More is further header lines.
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

// load makes hits with some clients, each over a connection of its own. A client's
// sequence has the keys and the user agents of its hits; it goes on when a hit is
// answered. A hit that is not answered fails the test.
func (n *nginx) load(t *testing.T, clients int, sequence func(client int) iter.Seq2[string, string]) {
	t.Helper()
	var all sync.WaitGroup
	for client := range clients {
		all.Go(func() {
			conn, err := n.dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(rig.Deadline))
			r := bufio.NewReader(conn)
			for key, agent := range sequence(client) {
				fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nUser-Agent: %s\r\n\r\n", rig.Target(key), agent)
				if answer, err := rig.ReadAnswer(r); err != nil || answer.StatusCode != 200 {
					t.Errorf("%.50q: %v, %v", key, answer, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// line is the line that the recipe logs for a hit.
type line struct {
	Time                                    time.Time
	ID, Address, Agent, Key, Method, Target string
	Status                                  int
}

// log waits until a log has at least want lines, and returns all its lines.
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
			t.Fatalf("the log has fewer than %d lines, %v:\n%s", want, err, text)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// relay accepts connections, counts them, and connects each to another address.
func relay(t *testing.T, to string) (address string, accepted *atomic.Int64) {
	t.Helper()
	accepted = new(atomic.Int64)
	address = rig.Listen(t, func(from net.Conn) {
		accepted.Add(1)
		conn, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer conn.Close()
		go func() {
			io.Copy(from, conn)
			from.Close()
		}()
		io.Copy(conn, from)
	})
	return address, accepted
}

// nginx logs a line for each hit, with time and client, and the lines agree with
// the daemon's counts, also when the log is rotated. nginx reuses its connections to
// the daemon.
func TestFrontLogsWhatIsCounted(t *testing.T) {
	t.Parallel()
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + received.Address})
	address, connections := relay(t, d.Address)
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf", "127.0.0.1:9187", address)
	began := time.Now().Truncate(time.Second)

	keys := []string{
		"article-42", "ü", "日本", "🙂", `"`, `\`, `"}`, "\x00", "\n", "\x1b", "\x7f",
		"a b", "a+b", "a&b", "a=b", "a#b", "a?b", "%41", "a,b",
		"__proto__", `{"event":"click","at":[1,2.5]}`, "0", "-", strings.Repeat("x", 12000),
	}
	const clients, rounds = 8, 10
	n.load(t, clients, func(client int) iter.Seq2[string, string] {
		return func(yield func(key, agent string) bool) {
			for i := range rounds * len(keys) {
				i %= len(keys)
				// The agent names the key, and has bytes that an attacker may send.
				if !yield(keys[i], fmt.Sprintf("%d \"\\\xff\x01 %d", i, client)) {
					return
				}
			}
		}
	})
	n.log(t, "pixel-ping.log", clients*rounds*len(keys))
	if info, err := os.Stat(n.folder + "/pixel-ping.log"); err != nil {
		t.Error(err)
	} else if got := info.Mode().Perm(); got != 0o640 {
		t.Errorf("the log, which holds addresses, has the mode %o, want 640", got)
	}
	// Rotate the log as logrotate does.
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
	overHTTP2 := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: n.roots}, ForceAttemptHTTP2: true,
	}}
	request, err := http.NewRequest("GET", "https://"+n.address+rig.Target("HTTP/2"+strings.Repeat("x", 12000)), nil)
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
		t.Errorf("%s %s, want HTTP/2.0 and status 200", answer.Proto, answer.Status)
	}
	// A page that is closed does not wait for the answer.
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

	logged, ids := make(map[string]int64), make(map[string]bool)
	for _, l := range lines {
		if len(l.ID) != 32 || ids[l.ID] {
			t.Errorf("the id %q is not 32 digits, or another line has it", l.ID)
		}
		ids[l.ID] = true
		if l.Status != 200 || l.Address != "127.0.0.1" || l.Time.Before(began) || l.Time.After(time.Now()) {
			t.Errorf("logged: %+v", l)
		}
		if _, query, _ := strings.Cut(l.Target, "?"); !strings.Contains("&"+query, "&key="+l.Key) && l.Key != "" {
			t.Errorf("the target %.300q does not contain the key %.300q", l.Target, l.Key)
		}
		key, err := url.QueryUnescape(l.Key)
		if err != nil {
			t.Error(err)
		}
		var i, client int
		if l.Agent != "" {
			if _, err := fmt.Sscanf(l.Agent, "%d \"\\\ufffd\x01 %d", &i, &client); err != nil || keys[i] != key {
				t.Errorf("the agent %q is logged with the key %.50q, %v", l.Agent, key, err)
			}
		}
		if key != "" {
			logged[key]++
		}
	}
	d.Stop(t)
	counted := rig.Counts[int64](t, received.Body(t))
	hits.front.Add(sum(counted))
	if !maps.Equal(logged, counted) {
		for key := range counted {
			if logged[key] != counted[key] {
				t.Errorf("%.50q has %d lines but is counted %d times", key, logged[key], counted[key])
			}
		}
		t.Errorf("%d keys are logged, but %d are counted", len(logged), len(counted))
	}
	if got := connections.Load(); got > 4*clients { // a busy machine makes nginx open some more
		t.Errorf("%d connections to the daemon for %d clients", got, clients)
	}
}

// A second run of the recipe keeps the log of the hits.
func TestFrontKeepsItsLog(t *testing.T) {
	t.Parallel()
	n := &nginx{folder: t.TempDir()}
	log := n.folder + "/pixel-ping.log"
	if err := os.WriteFile(log, []byte("a hit\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.createLog(t)
	text, err := os.ReadFile(log)
	if err != nil || string(text) != "a hit\n" {
		t.Errorf("the log has %q, error %v", text, err)
	}
	if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the log is %v, error %v, want mode 0640", info, err)
	}
}

// The pixel has another address, and some requests are served and not counted, as the
// recipe has it.
func TestFrontServesWithoutCounting(t *testing.T) {
	t.Parallel()
	const recipes = "../../../testdata/recipes/nginx/"
	received := make(chan string, 100)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		received <- r.Method + " " + r.RequestURI
	}))
	defer behind.Close()
	include := func(name string) string {
		path, err := filepath.Abs(recipes + name)
		if err != nil {
			t.Fatal(err)
		}
		return "include " + path + ";\n"
	}
	n := startNginx(t, recipes+"front.conf", "127.0.0.1:9187", behind.Listener.Addr().String(),
		"upstream pixel_ping {", include("uncounted.conf")+"upstream pixel_ping {",
		"\tlocation = /pixel.gif {\n",
		include("address.conf")+"\tlocation = /pixel.gif {\n"+include("uncounted-location.conf"))
	const query = "?key=%61+%2B%2f%2F%00%zz&x==?/../'<>[]{}|^`&KEY=d"
	const browser = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
	logged := 0
	for _, test := range []struct {
		method, path, more string
		counts             bool
	}{
		{"GET", "/pixel.gif", browser, true},
		{"POST", "/pixel.gif", browser, true},
		{"GET", "/img/logo.gif", browser, true},
		{"POST", "/img/logo.gif", browser, true},
		{"GET", "/pixel.gif", browser + "Sec-GPC: 0\r\nDNT: 0\r\n", true},
		{"GET", "/pixel.gif", browser + "Cookie: other=1; pixel_ping_own=0\r\n", true},
		{"GET", "/pixel.gif", "User-Agent: Mozilla/5.0 (Linux; Android 9; CUBOT X20 PRO) Chrome/140.0 Mobile\r\n", true},
		{"GET", "/pixel.gif", "User-Agent: Mozilla/5.0 gpc=1 dnt=1 HEAD own=1 own\r\n", true},

		{"GET", "/pixel.gif", browser + "Sec-GPC: 1\r\n", false},
		{"POST", "/pixel.gif", browser + "Sec-GPC: 1\r\n", false},
		{"GET", "/img/logo.gif", browser + "Sec-GPC: 1\r\n", false},
		{"GET", "/pixel.gif", browser + "DNT: 1\r\n", false},
		{"GET", "/pixel.gif", browser + "Sec-GPC: 0\r\nDNT: 1\r\n", false},
		{"HEAD", "/pixel.gif", browser, false},
		{"HEAD", "/img/logo.gif", "", false},
		{"GET", "/pixel.gif", browser + "Cookie: other=1; pixel_ping_own=1\r\n", false},
		{"GET", "/pixel.gif", "User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)\r\n", false},
		{"GET", "/pixel.gif", "User-Agent: Mozilla/5.0 AppleWebKit/537.36 (compatible; bingbot/2.0) Chrome/140.0\r\n", false},
		{"GET", "/pixel.gif", "User-Agent: facebookexternalhit/1.1\r\n", false},
		{"GET", "/pixel.gif", "User-Agent: Baiduspider\r\n", false},
		{"GET", "/pixel.gif", "User-Agent: Mozilla/5.0 HeadlessChrome/140.0\r\n", false},
		{"GET", "/pixel.gif", "", true}, // the last line of the log
	} {
		want := test.method + " /pixel.gif"
		if test.counts {
			want += query
			logged++
		}
		if status := n.ask(t, test.method, test.path+query, test.more); status != 200 {
			t.Errorf("%+v: status %d", test, status)
			continue
		}
		if got := <-received; got != want {
			t.Errorf("%+v: passed on as %s, want %s", test, got, want)
		}
	}
	for _, line := range n.log(t, "pixel-ping.log", logged) {
		if logged--; line.Key == "" || !strings.HasSuffix(line.Target, query) {
			t.Errorf("logged: %+v", line)
		}
	}
	if logged != 0 {
		t.Errorf("%d lines are missing in the log", logged)
	}
}

// Over a Unix socket the recipe does the same.
func TestFrontOverASocket(t *testing.T) {
	t.Parallel()
	received := rig.NewEndpoint(t)
	folder, err := os.MkdirTemp("", "front") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "socket")
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + received.Address, "host": "", "port": path})
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
		t.Errorf("the socket is %v, error %v, want mode 0666", info, err)
	}
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf",
		"\tserver 127.0.0.1:9187;\n", "",
		"\t# server unix:/run/pixel-ping/socket;\n", "\tserver unix:"+path+";\n")
	const total = 200
	for i := range total {
		if status := n.ask(t, "GET", rig.Target(fmt.Sprint("article-", i%7)), ""); status != 200 {
			t.Errorf("hit %d: status %d", i, status)
		}
	}
	d.Stop(t)
	counted := sum(rig.Counts[int64](t, received.Body(t)))
	hits.front.Add(counted)
	if counted != total {
		t.Errorf("%d hits are counted, want %d", counted, total)
	}
}

// nginx passes on requests for the pixel only, with the same bytes as target, and
// without the client's headers.
func TestFrontPassesThePixelOn(t *testing.T) {
	t.Parallel()
	received := make(chan *http.Request, 100)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { received <- r }))
	defer behind.Close()
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf", "127.0.0.1:9187", behind.Listener.Addr().String())
	for _, path := range []string{
		"/", "/pixel.gif/", "/pixel.giff", "/PIXEL.GIF", "/a/pixel.gif", "/?/pixel.gif", "/index.html",
		"/pixel%2egif%00", "//x/pixel.gif",
	} {
		if status := n.ask(t, "GET", path, ""); status != 404 && status != 400 {
			t.Errorf("%s: status %d", path, status)
		}
	}
	select {
	case r := <-received:
		t.Fatalf("%s is passed on", r.RequestURI)
	default:
	}
	const personal = "Cookie: personal\r\nUser-Agent: personal\r\nReferer: personal\r\nX-Any: personal\r\n"
	for _, query := range []string{
		"", "?", "?key=a", "?key=%61+%2B%2f%2F%00%zz", "?key=a%20b&key=c&KEY=d",
		"?x&&key==?/../'\"<>[]{}|\\^`", "?key=http://x/%2e%2e//", "?key=\xc3\xbc",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
			if status := n.ask(t, method, "/pixel.gif"+query, personal); status != 200 {
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
