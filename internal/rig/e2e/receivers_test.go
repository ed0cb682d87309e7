//go:build unix

package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// recipe is the folder of the recipes.
const recipe = "../../../testdata/recipes/"

// receiver is a recipe that runs.
type receiver struct {
	endpoint string
	process  *rig.Process
	// counts returns the saved count of each key.
	counts func(*testing.T) map[string]int64
	// query runs SQL in the database. It is nil if there is none.
	query func(t *testing.T, sql string)
	// server is the recipe's nginx.conf with another address, where there is one.
	server func(address string) string
	// age is the SQL that makes the ids of flushes 8 days older. After refuse, the database
	// refuses to save the key "z", and after accept no more.
	age, refuse, accept string
}

// receivers are the recipes that receive flushes, by folder, and what starts them.
var receivers = map[string]func(*testing.T) *receiver{
	"receiver": startGo, "express": startExpress, "php": startPHP, "django": startDjango, "rails": startRails,
}

// Each receiver saves 200,000 keys, hostile ones and those whose answer was lost, and
// refuses what is no flush, has another secret, or is above its limit.
func TestReceivers(t *testing.T) {
	for name, start := range receivers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			r := start(t)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the application's output ends with:\n%s", tail(r.process.Stdout.String()))
				}
			})
			took := func(what string) {
				t.Logf("%s: %v", what, time.Since(began).Round(10*time.Millisecond))
				began = time.Now()
			}
			took("start")
			r.refuses(t)
			took("refusals")
			r.savesEachFlushOnce(t)
			took("each flush once")
			r.savesHostileKeys(t, r.endpoint)
			took("hostile keys")
			r.savesBehindAFirewall(t, name)
			took("hostile keys behind a firewall")
			r.savesWhatComesAgain(t)
			took("a lost answer")
			r.savesManyKeys(t)
			took("200,000 keys")
		})
	}
}

// tail returns the end of a text.
func tail(text string) string { return text[max(0, len(text)-3000):] }

// post posts a form with the id of a flush, if that is not empty, and returns the
// status of the answer.
func (r *receiver) post(t *testing.T, id, form string) int {
	t.Helper()
	request, err := http.NewRequest("POST", r.endpoint, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		request.Header.Set("Idempotency-Key", `"`+id+`"`)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// flush returns the form of a flush.
func flush(json string) string { return url.Values{"json": {json}, "secret": {secret}}.Encode() }

// expect fails the test unless the receiver has saved what was expected and is added.
func (r *receiver) expect(t *testing.T, before, added map[string]int64) {
	t.Helper()
	want := maps.Clone(before)
	for key, n := range added {
		want[key] += n
	}
	got := r.counts(t)
	// What a program prints may come a moment later than its answer.
	for limit := time.Now().Add(rig.Deadline); !maps.Equal(got, want) && time.Now().Before(limit); got = r.counts(t) {
		<-time.After(100 * time.Millisecond)
	}
	if maps.Equal(got, want) {
		hits.application.Add(sum(added))
		return
	}
	wrong := 0
	for key := range maps.Keys(merged(got, want)) {
		if got[key] != want[key] {
			if wrong++; wrong < 20 {
				t.Errorf("%.50q: %d are saved, want %d", key, got[key], want[key])
			}
		}
	}
	t.Errorf("%d counts of %d are wrong", wrong, len(want))
}

// merged returns a map with the keys of both.
func merged(a, b map[string]int64) map[string]int64 {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// refuses posts what the receiver has to refuse.
func (r *receiver) refuses(t *testing.T) {
	t.Helper()
	before := r.counts(t)
	const a = `{"a":1}`
	for _, c := range []struct {
		status int
		form   string
	}{
		{403, url.Values{"json": {a}, "secret": {"another"}}.Encode()},
		{403, url.Values{"json": {a}, "secret": {""}}.Encode()},
		{403, url.Values{"json": {a}, "secret": {secret + " "}}.Encode()},
		{400, url.Values{"secret": {secret}}.Encode()},
		{400, ""},
		{400, "%00"},
		{400, flush("")},
		{400, flush("null")},
		{400, flush("1")},
		{400, flush(`"a"`)},
		{400, flush(`[]`)},
		{400, flush(`[1]`)},
		{400, flush(`{"a":1`)},
		{400, flush(`{"a":1}}`)},
		{400, flush(`{"a":1}{"b":1}`)},
		{400, flush(`{"a":1,}`)},
		{400, flush(`{"a":1,"b":0}`)},
		{400, flush(`{"a":1,"b":-1}`)},
		{400, flush(`{"a":1,"b":0.5}`)},
		{400, flush(`{"a":1,"b":"2"}`)},
		{400, flush(`{"a":1,"b":true}`)},
		{400, flush(`{"a":1,"b":null}`)},
		{400, flush(`{"a":1,"b":{}}`)},
		{400, flush(strings.Repeat("[", 100_000))},
		{400, flush(strings.Repeat(`{"a":`, 100_000))},
	} {
		if status := r.post(t, "", c.form); status != c.status {
			t.Errorf("%.100q: status %d, want %d", c.form, status, c.status)
		}
	}
	for _, form := range []string{flush("{}"), flush(" { } ")} {
		if status := r.post(t, "", form); status != 204 {
			t.Errorf("%q: status %d, want 204", form, status)
		}
	}
	r.expect(t, before, nil)
	r.hasTheLimit(t)
	before = r.counts(t)

	// The daemon says that its secret is wrong, and the counts come with the right one.
	journal := t.TempDir()
	wrong := rig.StartDaemon(t, map[string]any{"endpoint": r.endpoint, "secret": "another", "journal": journal})
	wrong.Hit(t, "secret")
	wrong.Signal(t, syscall.SIGUSR2)
	wrong.Stderr.WaitLine(t, 0, "--- flush failed with code:403")
	wrong.Signal(t, syscall.SIGKILL)
	wrong.Wait(t)
	right := rig.StartDaemon(t, map[string]any{"endpoint": r.endpoint, "secret": secret, "journal": journal})
	right.Stop(t)
	r.expect(t, before, map[string]int64{"secret": 1})
}

// hasTheLimit posts a flush that is a little below 16 MB, and one that is above.
func (r *receiver) hasTheLimit(t *testing.T) {
	t.Helper()
	before := r.counts(t)
	for size, want := range map[int]int{15 << 20: 204, 16 << 20: 413} {
		if status := r.post(t, "", flush(`{"large":1}`)+"&other="+strings.Repeat("x", size)); status != want {
			t.Errorf("%d MB: status %d, want %d", size>>20, status, want)
		}
	}
	r.expect(t, before, map[string]int64{"large": 1})
}

// savesEachFlushOnce posts flushes under ids that are known, unknown and old.
func (r *receiver) savesEachFlushOnce(t *testing.T) {
	t.Helper()
	want := r.counts(t)
	send := func(id string) {
		t.Helper()
		if status := r.post(t, id, flush(`{"once":1}`)); status != 204 {
			t.Errorf("%s: status %d, want 204", id, status)
		}
	}
	var again sync.WaitGroup
	for range 5 {
		again.Go(func() { send("first") })
	}
	again.Wait()
	r.expect(t, want, map[string]int64{"once": 1})
	send("second")
	send("")
	send("")
	r.expect(t, want, map[string]int64{"once": 4})
	if r.query == nil {
		return
	}
	// The last key of a flush cannot be saved: nothing of it is, and its id is not.
	r.query(t, r.refuse)
	if status := r.post(t, "fails", flush(`{"once":1,"z":1}`)); status != 500 {
		t.Errorf("status %d while the database refuses a key, want 500", status)
	}
	r.expect(t, want, map[string]int64{"once": 4})
	r.query(t, r.accept)
	if status := r.post(t, "fails", flush(`{"once":1,"z":1}`)); status != 204 {
		t.Errorf("status %d of the same flush after that, want 204", status)
	}
	want["z"]++
	want["once"]++
	r.expect(t, want, map[string]int64{"once": 4})
	r.query(t, r.age)
	send("second") // the id is still there
	r.expect(t, want, map[string]int64{"once": 4})
	send("third")
	send("second")
	r.expect(t, want, map[string]int64{"once": 6})
}

// savesHostileKeys makes hits of keys that a client can invent, and flushes them to an
// endpoint.
func (r *receiver) savesHostileKeys(t *testing.T, endpoint string) {
	t.Helper()
	before, want := r.counts(t), make(map[string]int64)
	d := rig.StartDaemon(t, map[string]any{"endpoint": endpoint, "secret": secret})
	keys := []string{
		"\x00", "a\x00b", "a\ufffdb", "ab", // NUL, and keys that it must not be confused with
		"__proto__", "constructor", "toString", "hasOwnProperty", "0", "10", "9", "-1", "1e3", "true", "010",
		`"`, `'`, `\`, `\\`, `\ud800`, "`", "{}", "{1,2}", "NULL", "null", "[]", "a[b]", "a[", "a.b",
		"'); DROP TABLE hits; --", "1' OR '1'='1", "$1", "?", "%s", "%00", "%", "{{7*7}}", "../../etc/passwd",
		"<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "() { :;}; echo", "; cat /etc/passwd",
		"\t", "\n", "\r\n", "\x1b[31m", "\u2028", " ", "  ", "+", "&", "=", "a&secret=b", "\x7f",
		"\x80", "\xed\xa0\x80",
		"ü", "u\u0308", "é", "日本", "🙂", "👩‍👩‍👧", "\ufeff", "\U0010ffff",
		strings.Repeat("x", 15000), strings.Repeat("🙂", 1200), strings.Repeat("\x00", 4000),
	}
	for range 2 {
		d.Hit(t, keys...)
		d.Flush(t)
		for _, key := range keys {
			want[key]++
		}
	}
	want["\ufffd"], want["\ufffd\ufffd\ufffd"] = want["\x80"], want["\xed\xa0\x80"] // these are not UTF-8
	delete(want, "\x80")
	delete(want, "\xed\xa0\x80")
	d.Stop(t)
	r.expect(t, before, want)
	if got := d.Stderr.String(); got != "" {
		t.Errorf("the daemon's standard error is:\n%s", got)
	}

	// What the daemon does not send: halves of surrogate pairs, and longer keys.
	before = r.counts(t)
	long := strings.Repeat("y", 20000)
	escaped := strings.Repeat(`\u0001`, 20000)
	for _, json := range []string{
		`{"\ud800":1}`, `{"\udbff":1,"x\udc00":2}`,
		`{"\\ud800":4,"\ud83d\ude42":8,"` + long + `":16,"` + escaped + `":32}`,
	} {
		if status := r.post(t, "", flush(json)); status != 204 {
			t.Errorf("%.100s: status %d, want 204", json, status)
		}
	}
	r.expect(t, before, map[string]int64{"\ufffd": 2, "x\ufffd": 2, `\ud800`: 4, "🙂": 8, long: 16,
		strings.Repeat("\x01", 20000): 32})
}

// savesWhatComesAgain loses the first answer to a flush: the daemon sends it again, and
// it counts once.
func (r *receiver) savesWhatComesAgain(t *testing.T) {
	t.Helper()
	before := r.counts(t)
	endpoint, lost := loseAnswers(t, r.endpoint, 1)
	d := rig.StartDaemon(t, map[string]any{"endpoint": endpoint, "secret": secret})
	d.Hit(t, "again", "again", "and again")
	d.Signal(t, syscall.SIGUSR2)
	d.Stderr.WaitLine(t, 0, "--- cannot connect to endpoint :")
	r.expect(t, before, map[string]int64{"again": 2, "and again": 1})
	d.Hit(t, "and again")
	d.Stop(t)
	r.expect(t, before, map[string]int64{"again": 2, "and again": 2})
	if lost.Load() != 1 {
		t.Errorf("%d answers were lost, want 1", lost.Load())
	}
}

// loseAnswers passes connections on to an endpoint, but cuts the first ones when the
// answer comes.
func loseAnswers(t *testing.T, endpoint string, answers int64) (through string, lost *atomic.Int64) {
	t.Helper()
	to, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	lost = new(atomic.Int64)
	address := rig.Listen(t, func(from net.Conn) {
		conn, err := net.Dial("tcp", to.Host)
		if err != nil {
			return
		}
		defer conn.Close()
		go io.Copy(conn, from)
		head := make([]byte, 4096)
		n, err := conn.Read(head)
		if err != nil {
			return
		}
		if lost.Add(1) <= answers {
			rig.Reset(from)
			return
		}
		lost.Add(-1)
		from.Write(head[:n])
		io.Copy(from, conn)
	})
	return "http://" + address + to.Path, lost
}

// savesManyKeys flushes 200,000 addresses of pages. Their body is above the limit, so
// that the daemon sends them in parts.
func (r *receiver) savesManyKeys(t *testing.T) {
	t.Helper()
	before := r.counts(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": r.endpoint, "secret": secret})
	keys, want := manyKeys()
	d.HitMany(t, keys)
	began := time.Now()
	flushOnce(t, d)
	t.Logf("a flush of %d keys: %v", len(keys), time.Since(began).Round(10*time.Millisecond))
	d.Stop(t)
	r.expect(t, before, want)
	// Numbers that fall into one place of a hash table of PHP, which has no seed.
	before, keys = r.counts(t), nil
	collide := make(map[string]int64)
	for i := range 100_000 {
		key := strconv.Itoa(i << 17)
		keys, collide[key] = append(keys, key), 1
	}
	d = rig.StartDaemon(t, map[string]any{"endpoint": r.endpoint, "secret": secret})
	d.HitMany(t, keys)
	flushOnce(t, d)
	d.Stop(t)
	r.expect(t, before, collide)
}

// manyKeys returns 200,000 addresses of pages, and one hit of each. A flush of them has
// 20 MB.
func manyKeys() (keys []string, hits map[string]int64) {
	hits = make(map[string]int64)
	for i := range 200_000 {
		key := fmt.Sprintf("https://www.example.com/2026/11/29/an-article-%06d?page=1&from=front", i)
		keys, hits[key] = append(keys, key), 1
	}
	return keys, hits
}

// savesBehindAFirewall makes hostile keys pass a firewall with the exceptions that the
// README of the recipe names: nginx's directive, and the rule.
func (r *receiver) savesBehindAFirewall(t *testing.T, name string) {
	t.Helper()
	const off = "modsecurity off;"
	readme := adapted(t, name+"/README.md", "`"+off+"`", off)
	server := r.server
	if server == nil {
		server = proxy(r.endpoint, off)
	}
	through := *r
	through.endpoint = "http://" + startFirewall(t, "", server) + "/save_hits"
	r.savesHostileKeys(t, through.endpoint)
	through.hasTheLimit(t)

	_, rule, found := strings.Cut(readme, "\nSecRule ")
	rule, _, _ = strings.Cut(rule, "\n")
	if !found {
		t.Fatal("the README has no rule for a firewall")
	}
	r.savesHostileKeys(t, "http://"+startFirewall(t, "SecRule "+rule, proxy(r.endpoint, ""))+"/save_hits")
}

// adapted returns the text of a recipe's file, in which each first element of pairs is
// replaced with the second.
func adapted(t *testing.T, name string, pairs ...string) string {
	t.Helper()
	file, err := os.ReadFile(recipe + name)
	if err != nil {
		t.Fatal(err)
	}
	for pair := range slices.Chunk(pairs, 2) {
		if !strings.Contains(string(file), pair[0]) {
			t.Fatalf("%s does not have %q", name, pair[0])
		}
	}
	return strings.NewReplacer(pairs...).Replace(string(file))
}

// startProgram starts a program of a recipe in a folder and waits until it listens.
func startProgram(t *testing.T, folder, address string, env []string, command ...string) *rig.Process {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
	output := rig.NewOutput()
	p := rig.StartGroup(t, cmd, output, output)
	p.WaitListening(t, address)
	return p
}

// run runs a command of a recipe.
func run(t *testing.T, folder string, env []string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%q: %v\n%s", command, err, text)
	}
}

// startGo starts the recipe receiver. It keeps the counts in memory and prints each of
// them after a flush.
func startGo(t *testing.T) *receiver {
	program, address := filepath.Join(t.TempDir(), "receiver"), "127.0.0.1:"+rig.FreePort(t)
	run(t, "", nil, "go", "build", "-buildvcs=false", "-o", program, recipe+"receiver")
	p := startProgram(t, "", address, nil, program, "-listen", address, "-secret", secret)
	return &receiver{
		endpoint: "http://" + address + "/save_hits",
		process:  p,
		counts: func(t *testing.T) map[string]int64 {
			counts := make(map[string]int64)
			for line := range strings.Lines(p.Stdout.String()) {
				if !strings.HasSuffix(line, "\n") {
					break // the rest of it comes later
				}
				line, _ = strings.CutPrefix(line, "application: ")
				quoted, err := strconv.QuotedPrefix(line)
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				key, _ := strconv.Unquote(quoted)
				var n int64
				if _, err := fmt.Sscanf(line[len(quoted):], ", %d in all", &n); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				counts[key] = n
			}
			return counts
		},
	}
}

// startExpress starts the recipe express.
func startExpress(t *testing.T) *receiver {
	a := startApplication(t, "fsync=off")
	return &receiver{
		endpoint: a.url + "/save_hits",
		process:  a.process,
		counts: func(t *testing.T) map[string]int64 {
			counts := make(map[string]int64)
			for _, row := range a.query(t, "-c", "SELECT encode(convert_to(key, 'UTF8'), 'hex'), count FROM hits") {
				counts[strings.ReplaceAll(unhex(t, row[0]), `\u0000`, "\x00")] += number(t, row[1])
			}
			return counts
		},
		query:  func(t *testing.T, sql string) { a.query(t, "-c", sql) },
		age:    "UPDATE flushes SET saved = saved - interval '8 days'",
		refuse: "ALTER TABLE hits ADD CONSTRAINT refuse CHECK (key <> 'z')",
		accept: "ALTER TABLE hits DROP CONSTRAINT refuse",
	}
}

// startPHP starts php-fpm and nginx with the files of the recipe php.
func startPHP(t *testing.T) *receiver {
	folder, err := os.MkdirTemp("", "php") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	database := filepath.Join(folder, "hits.sqlite")
	run(t, "", nil, "sh", "-c", "sqlite3 "+database+" < "+recipe+"php/schema.sql")
	owner, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if owner, err = user.Lookup("www-data"); err != nil {
			t.Fatal(err)
		}
		run(t, "", nil, "chown", "-R", owner.Username, folder)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("save_hits.php", adapted(t, "php/save_hits.php"))
	write("fpm.conf", "[global]\nerror_log = /proc/self/fd/2\n"+adapted(t, "php/hits.conf",
		"/run/php", folder, "/var/lib/hits", folder, "www-data", owner.Username,
		"swordfish", `"`+secret+`"`))
	program, _ := filepath.Glob("/usr/sbin/php-fpm*")
	if program == nil {
		t.Fatal("there is no php-fpm")
	}
	output := rig.NewOutput()
	cmd := exec.Command(program[0], "--nodaemonize", "--fpm-config", filepath.Join(folder, "fpm.conf"))
	fpm := rig.StartGroup(t, cmd, output, output)
	output.WaitLine(t, 0, "")
	address := "127.0.0.1:" + rig.FreePort(t)
	server := func(address, off, limit string) string {
		return adapted(t, "php/nginx.conf", "127.0.0.1:8080", address, "# modsecurity off;", off, "16m;", limit,
			"include fastcgi_params", "include /etc/nginx/fastcgi_params", "/srv/hits", folder, "/run/php", folder)
	}
	// Without a limit of nginx, PHP's is seen. Behind the firewall, that of nginx is.
	rig.StartNginx(t, t.TempDir(), server(address, "", "0;"), address)
	r := sqlite(database, "http://"+address, fpm, "UPDATE flushes SET saved = saved - 8 * 86400")
	r.server = func(address string) string { return server(address, "modsecurity off;", "16m;") }
	return r
}

// startDjango starts gunicorn with a copy of the recipe django.
func startDjango(t *testing.T) *receiver {
	folder, address := copied(t, "django"), "127.0.0.1:"+rig.FreePort(t)
	database := filepath.Join(folder, "hits.sqlite")
	env := []string{"SECRET=" + secret, "DATABASE=" + database}
	run(t, folder, env, "django-admin", "migrate", "--pythonpath", ".", "--settings", "hits.settings")
	p := startProgram(t, folder, address, env, "gunicorn", "--workers", "2", "--bind", address, "hits.wsgi")
	r := sqlite(database, "http://"+address, p, "UPDATE hits_flush SET saved = datetime(saved, '-8 days')")
	r.server = behind(t, "django/nginx.conf", "127.0.0.1:8000", address)
	return r
}

// startRails starts puma with a copy of the recipe rails.
func startRails(t *testing.T) *receiver {
	folder, address := copied(t, "rails"), "127.0.0.1:"+rig.FreePort(t)
	database := filepath.Join(folder, "hits.sqlite")
	run(t, folder, nil, "sh", "-c", "sqlite3 hits.sqlite < schema.sql")
	env := []string{"SECRET=" + secret, "DATABASE_URL=sqlite3:" + database + "?timeout=30000"}
	p := startProgram(t, folder, address, env, "puma", "--environment", "production", "--bind", "tcp://"+address)
	r := sqlite(database, "http://"+address, p, "UPDATE flushes SET saved = saved - 8 * 86400")
	r.server = behind(t, "rails/nginx.conf", "127.0.0.1:9292", address)
	return r
}

// behind returns the nginx.conf of a recipe for an application at another address, with
// the exception for a firewall.
func behind(t *testing.T, name, application, address string) func(string) string {
	return func(listen string) string {
		return adapted(t, name, "127.0.0.1:8080", listen, application, address,
			"# modsecurity off;", "modsecurity off;")
	}
}

// copied copies a recipe into a new folder.
func copied(t *testing.T, name string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(folder, os.DirFS(recipe+name)); err != nil {
		t.Fatal(err)
	}
	return folder
}

// sqlite returns a receiver that saves the counts in a file of SQLite.
func sqlite(file, address string, process *rig.Process, age string) *receiver {
	query := func(t *testing.T, sql string) []byte {
		t.Helper()
		text, err := exec.Command("sqlite3", "-bail", file, sql).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", sql, err, text)
		}
		return text
	}
	table := "hits"
	if strings.Contains(age, "hits_flush") {
		table = "hits_hit" // Django's name
	}
	return &receiver{
		endpoint: address + "/save_hits",
		process:  process,
		counts: func(t *testing.T) map[string]int64 {
			counts := make(map[string]int64)
			for line := range bytes.Lines(query(t, "SELECT hex(key), count FROM "+table)) {
				key, n, _ := strings.Cut(strings.TrimSpace(string(line)), "|")
				counts[unhex(t, key)] = number(t, n)
			}
			return counts
		},
		query: func(t *testing.T, sql string) { query(t, sql) },
		age:   age,
		refuse: "CREATE TRIGGER refuse BEFORE INSERT ON " + table +
			" WHEN NEW.key = 'z' BEGIN SELECT RAISE(ABORT, 'z'); END",
		accept: "DROP TRIGGER refuse",
	}
}

func unhex(t *testing.T, digits string) string {
	t.Helper()
	text, err := hex.DecodeString(digits)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func number(t *testing.T, digits string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
