//go:build unix

package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// application is the Express application and the database in which it saves.
type application struct {
	*postgres
	url     string
	process *rig.Process
}

// secret has characters that a form must escape.
const secret = "it's a § secret & more"

// login is the name and the password of the application's pages.
const login = "editor:tuna: ü"

// startApplication starts the application with a PostgreSQL of its own. The options
// are for PostgreSQL.
func startApplication(t *testing.T, options ...string) *application {
	t.Helper()
	return startPostgres(t, options...).startApplication(t)
}

// startApplication follows the recipe: it copies the application to an empty folder,
// creates its tables, and starts it. The environment is added to that of PostgreSQL's
// clients.
func (p *postgres) startApplication(t *testing.T, env ...string) *application {
	t.Helper()
	folder, port := t.TempDir(), rig.FreePort(t)
	for _, name := range []string{"app.js", "page.js"} {
		text, err := os.ReadFile("../../../testdata/recipes/express/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// package.json declares that app.js is a module.
	for _, name := range []string{"package.json", "node_modules"} {
		if err := os.Symlink(filepath.Join(express, name), filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	a := &application{postgres: p, url: "http://127.0.0.1:" + port}
	a.query(t, "-f", "../../../testdata/recipes/express/schema.sql")
	cmd := exec.Command("node", "app.js")
	cmd.Dir = folder
	cmd.Env = slices.Concat(os.Environ(), a.env(), []string{"SECRET=" + secret, "LOGIN=" + login, "PORT=" + port}, env)
	output := rig.NewOutput()
	a.process = rig.Start(t, cmd, output, output)
	output.WaitLine(t, 0, "Saving hits at "+a.url+"/save_hits")
	return a
}

// post posts a form as a flush and returns the status of the answer.
func (a *application) post(t *testing.T, form url.Values) int {
	t.Helper()
	answer, err := http.PostForm(a.url+"/save_hits", form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

// opened asks the application how often a key was counted, and when first and last.
func (a *application) opened(t *testing.T, key string) (status int, seen struct {
	Count       int64
	First, Last time.Time
}) {
	t.Helper()
	answer, err := http.Get(a.url + "/opened/" + url.PathEscape(key))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, seen
}

// The application knows how often an e-mail or a page was opened, and when first
// and last.
func TestApplicationTellsHowOftenItWasOpened(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	d := rig.StartDaemon(t, map[string]any{"endpoint": a.url + "/save_hits", "secret": secret})
	if status, _ := a.opened(t, "newsletter-7"); status != 404 {
		t.Errorf("status %d before anything was opened, want 404", status)
	}
	began := time.Now()
	d.Hit(t, "newsletter-7", "newsletter-7", "pages/über uns?")
	d.Flush(t)
	_, once := a.opened(t, "newsletter-7")
	// PostgreSQL keeps microseconds, a JavaScript Date milliseconds.
	if once.Count != 2 || once.First.Before(began.Truncate(time.Millisecond)) || once.First != once.Last {
		t.Errorf("%+v, want the count 2, and first and last the same and after %v", once, began)
	}
	d.Hit(t, "newsletter-7")
	d.Stop(t)
	hits.application.Add(4)
	_, twice := a.opened(t, "newsletter-7")
	if twice.Count != 3 || twice.First != once.First || !twice.Last.After(once.Last) {
		t.Errorf("%+v, want the count 3, first as in %+v, and last later than there", twice, once)
	}
	if _, page := a.opened(t, "pages/über uns?"); page.Count != 1 {
		t.Errorf("the page: %+v, want the count 1", page)
	}
}

// The application refuses and does not save a request that is not a flush, or that
// has another secret.
func TestApplicationRefuses(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	for _, c := range []struct {
		status int
		form   url.Values
	}{
		{403, url.Values{"json": {`{"a":1}`}, "secret": {"another"}}},
		{403, url.Values{"json": {`{"a":1}`}, "secret": {""}}},
		{400, url.Values{"json": {`{"a":1}`}}},
		{400, url.Values{"json": {`{"a":1}`}, "secret": {secret, secret}}},
		{400, url.Values{"json": {`{"a":1}`, `{"a":1}`}, "secret": {secret}}},
		{400, url.Values{"secret": {secret}}},
		{400, url.Values{}},
		{400, url.Values{"json": {`{"a":1`}, "secret": {secret}}},
		{400, url.Values{"json": {`null`}, "secret": {secret}}},
		{400, url.Values{"json": {`[1]`}, "secret": {secret}}},
		{400, url.Values{"json": {`""`}, "secret": {secret}}},
		{400, url.Values{"json": {`{"a":1,"b":0}`}, "secret": {secret}}},
		{400, url.Values{"json": {`{"a":1,"b":-1}`}, "secret": {secret}}},
		{400, url.Values{"json": {`{"a":1,"b":0.5}`}, "secret": {secret}}},
		{400, url.Values{"json": {`{"a":1,"b":"2"}`}, "secret": {secret}}},
		{400, url.Values{"json": {`{"a":1,"b":null}`}, "secret": {secret}}},
		{413, url.Values{"json": {`{"a":1,"` + strings.Repeat("x", 17<<20) + `":1}`}, "secret": {secret}}},
	} {
		if status := a.post(t, c.form); status != c.status {
			t.Errorf("%.100q: status %d, want %d", c.form, status, c.status)
		}
	}
	if saved := a.counts(t); len(saved) > 0 {
		t.Errorf("saved: %v", saved)
	}
	for range 2 {
		if status := a.post(t, url.Values{"json": {`{"a":1,"b":9007199254740991}`}, "secret": {secret}}); status != 204 {
			t.Errorf("status %d, want 204", status)
		}
	}
	if status := a.post(t, url.Values{"json": {`{}`}, "secret": {secret}}); status != 204 {
		t.Errorf("status %d of an empty flush, want 204", status)
	}
	if saved := a.counts(t); saved["a"] != 2 || saved["b"] != 2*9007199254740991 {
		t.Errorf("saved: %v", saved)
	}
}

// The application saves every key that a client can invent, and confuses no two.
func TestApplicationSavesAnyKey(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	d := rig.StartDaemon(t, map[string]any{"endpoint": a.url + "/save_hits", "secret": secret})
	keys := []string{
		"\x00", "a\x00b", "a\\u0000b", "a\ufffdb", "ab", // NUL, and keys that it must not be confused with
		"__proto__", "constructor", "toString", "hasOwnProperty", "0", "10", "9", "-1",
		`"`, `'`, `\`, `\\`, "`", "{}", "{1,2}", "NULL", "null", "'); DROP TABLE hits; --", "$1", "%00", "%",
		"\t", "\n", "\r\n", "\x1b[31m", "\u2028", " ", "  ", "+", "&", "=", "a&secret=b", "\x7f",
		"ü", "u\u0308", "é", "日本", "🙂", "👩‍👩‍👧", "\ufeff", "\U0010ffff",
		strings.Repeat("x", 12000), strings.Repeat("x", 12001), strings.Repeat("🙂", 1200), strings.Repeat("\x00", 4000),
	}
	for range 2 {
		d.Hit(t, keys...)
		d.Flush(t)
	}
	d.Stop(t)
	type row struct{ key, count string }
	saved := make(map[string]row)
	const all = "SELECT encode(id, 'hex'), encode(convert_to(key, 'UTF8'), 'hex'), count FROM hits"
	for _, columns := range a.query(t, "-c", all) {
		saved[columns[0]] = row{columns[1], columns[2]}
	}
	for _, key := range keys {
		want := row{fmt.Sprintf("%x", strings.ReplaceAll(key, "\x00", `\u0000`)), "2"}
		if got := saved[fmt.Sprintf("%x", sha256.Sum256([]byte(key)))]; got != want {
			t.Errorf("%.50q: saved as %.100v", key, got)
		}
		if _, seen := a.opened(t, key); seen.Count != 2 {
			t.Errorf("%.50q: opened %d times, want 2", key, seen.Count)
		}
	}
	if len(saved) != len(keys) {
		t.Errorf("%d keys are saved, want %d", len(saved), len(keys))
	}
	hits.application.Add(int64(2 * len(keys)))
	if got := d.Stderr.String(); got != "" {
		t.Errorf("the daemon's standard error is:\n%s", got)
	}
}

// While the database is down, the application answers 500. A later flush delivers
// the counts once.
func TestApplicationWithoutDatabase(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	d := rig.StartDaemon(t, map[string]any{"endpoint": a.url + "/save_hits", "secret": secret})
	d.Hit(t, "a", "b")
	d.Flush(t)
	a.postgres.stop(t)
	d.Hit(t, "a", "c")
	d.Signal(t, syscall.SIGUSR2)
	d.Stderr.WaitLine(t, 0, "--- flush failed with code:500")
	d.Hit(t, "a")
	a.postgres.start(t)
	d.Flush(t)
	d.Stop(t)
	hits.application.Add(5)
	if got, want := a.counts(t), map[string]int64{"a": 3, "b": 1, "c": 1}; !maps.Equal(got, want) {
		t.Errorf("saved %v, want %v", got, want)
	}
}

// The application saves through PgBouncer, which gives each transaction to a connection
// that several clients share, and refuses a client that begins with settings.
func TestApplicationBehindPgBouncer(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, "fsync=off")
	port, config := rig.FreePort(t), filepath.Join(p.folder, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%s user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
`, p.port, port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	output := rig.NewOutput()
	bouncer := rig.Start(t, p.command("pgbouncer", config), output, output)
	bouncer.WaitListening(t, "127.0.0.1:"+port)
	a := p.startApplication(t, "PGPORT="+port)
	d := rig.StartDaemon(t, map[string]any{"endpoint": a.url + "/save_hits", "secret": secret})
	for range 3 {
		d.Hit(t, "a", "b")
		d.Flush(t)
	}
	var flushes sync.WaitGroup
	for range 20 {
		flushes.Go(func() { a.save(t, map[string]int64{"a": 1}) })
	}
	flushes.Wait()
	d.Stop(t)
	hits.application.Add(26)
	if got, want := a.counts(t), map[string]int64{"a": 23, "b": 3}; !maps.Equal(got, want) {
		t.Errorf("saved %v, want %v; the application's output is:\n%s", got, want, a.process.Stdout)
	}
	if _, seen := a.opened(t, "a"); seen.Count != 23 {
		t.Errorf("a was opened %d times, want 23", seen.Count)
	}
	if !strings.Contains(output.String(), "login attempt") {
		t.Errorf("PgBouncer has had no client; its output is:\n%s", output)
	}
}

// A statement that takes longer than the application gives it is ended, so that the
// database does not go on with it.
func TestApplicationEndsALongTransaction(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(recipe + "express/app.js")
	if err != nil {
		t.Fatal(err)
	}
	const limit = "SET LOCAL statement_timeout = '30s'"
	if !strings.Contains(string(text), limit) {
		t.Fatalf("app.js does not have %q", limit)
	}
	p := startPostgres(t, "fsync=off")
	a := p.startApplication(t)
	file := filepath.Join(a.process.Cmd.Dir, "app.js")
	quick := strings.Replace(string(text), limit, "SET LOCAL statement_timeout = '100ms'", 1)
	if err := os.WriteFile(file, []byte(quick), 0o600); err != nil {
		t.Fatal(err)
	}
	a.process.Signal(t, syscall.SIGTERM)
	a.process.Wait(t)
	output := rig.NewOutput()
	cmd := exec.Command("node", "app.js")
	cmd.Dir, cmd.Env = a.process.Cmd.Dir, a.process.Cmd.Env
	rig.Start(t, cmd, output, output)
	output.WaitLine(t, 0, "Saving hits at "+a.url+"/save_hits")

	// Another session has locked the table. The flush fails; the next one is saved.
	lock := p.command("psql", "-XAtq")
	lock.Stdin = strings.NewReader("BEGIN; LOCK TABLE hits; SELECT 'locked';\nSELECT pg_sleep(60);\n")
	locked := rig.NewOutput()
	session := rig.Start(t, lock, locked, locked)
	locked.WaitLine(t, 0, "locked")
	flush := url.Values{"json": {`{"a":1}`}, "secret": {secret}}
	if status := a.post(t, flush); status != 500 {
		t.Errorf("status %d while the table is locked, want 500", status)
	}
	output.WaitLine(t, 0, "error: canceling statement due to statement timeout")
	p.query(t, "-c", `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()`)
	session.Wait(t)
	if status := a.post(t, flush); status != 204 {
		t.Errorf("status %d after that, want 204", status)
	}
	if got := a.counts(t); got["a"] != 1 {
		t.Errorf("saved %v, want 1", got)
	}
}

// systemd accepts the unit without a warning, and the unit takes rights away from the
// application.
func TestUnitOfTheApplication(t *testing.T) {
	t.Parallel()
	unit := filepath.Join(t.TempDir(), "hits.service")
	if err := os.WriteFile(unit, []byte(adapted(t, "express/hits.service")), 0o600); err != nil {
		t.Fatal(err)
	}
	if verified, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput(); err != nil || len(verified) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, verified)
	}
	security := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=30", unit)
	if report, err := security.CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, report)
	}
}

// Flushes of several daemons at once, with their keys in different orders, do not
// deadlock in the database.
func TestApplicationTakesFlushesAtOnce(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	const keys, flushes = 2000, 10
	var up, down strings.Builder
	for i := range keys {
		fmt.Fprintf(&up, ",\"key %d\":1", i)
		fmt.Fprintf(&down, ",\"key %d\":1", keys-1-i)
	}
	var daemons sync.WaitGroup
	for _, list := range []string{up.String(), down.String(), up.String(), down.String()} {
		daemons.Go(func() {
			for range flushes {
				if status := a.post(t, url.Values{"json": {"{" + list[1:] + "}"}, "secret": {secret}}); status != 204 {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	daemons.Wait()
	for key, n := range a.counts(t) {
		if n != 4*flushes {
			t.Errorf("%s: %d are saved, want %d", key, n, 4*flushes)
		}
	}
	if t.Failed() {
		t.Logf("the application's output is:\n%.2000s", a.process.Stdout)
	}
}

// The number of upserts a second limits the size of a fleet. This database has its
// default durability.
func TestUpserts(t *testing.T) {
	a := startApplication(t)
	const keys = 100_000
	var list strings.Builder
	for i := range keys {
		fmt.Fprintf(&list, ",\"article-%d\":1", i)
	}
	flush := url.Values{"json": {"{" + list.String()[1:] + "}"}, "secret": {secret}}
	for _, what := range []string{"new keys", "known keys", "known keys again"} {
		began := time.Now()
		if status := a.post(t, flush); status != 204 {
			t.Fatalf("status %d; the application's output is:\n%s", status, a.process.Stdout)
		}
		took := time.Since(began)
		t.Logf("%d %s in one flush: %v, %.0f upserts a second", keys, what, took.Round(time.Millisecond), keys/took.Seconds())
		if took > time.Minute {
			t.Error("the daemon waits a minute for an answer")
		}
	}
	got := a.query(t, "-c", "SELECT count(*), min(count), max(count) FROM hits")
	if fmt.Sprint(got) != fmt.Sprintf("[[%d 3 3]]", keys) {
		t.Errorf("keys, smallest and largest count: %v", got)
	}
}
