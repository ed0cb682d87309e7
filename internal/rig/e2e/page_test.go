//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// save posts a flush with these counts.
func (a *application) save(t *testing.T, counts map[string]int64) {
	t.Helper()
	text, err := json.Marshal(counts)
	if err != nil {
		t.Fatal(err)
	}
	if status := a.post(t, url.Values{"json": {string(text)}, "secret": {secret}}); status != 204 {
		t.Fatalf("status %d of a flush, want 204", status)
	}
}

// rows is a script whose value is the texts of the cells of the tables of a page.
const rows = `[...document.querySelectorAll("table")].map((table) =>
	[...table.rows].map((row) => [...row.cells].map((cell) => cell.textContent.trim()).join(": ")))`

// The page shows the hits of each day, and the totals and the most-hit keys of the
// last 7 and 30 days; a click on a key shows the days of that key.
func TestPageShowsTheMostHitKeys(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	for _, day := range []struct {
		ago    int
		counts map[string]int64
	}{
		{30, map[string]int64{"too old": 1000}},
		{29, map[string]int64{"a": 1000, "old": 500}},
		{7, map[string]int64{"old": 5}},
		{6, map[string]int64{"b": 30, "old": 7}},
		{0, map[string]int64{"a": 3, "b": 1}},
	} {
		a.save(t, day.counts)
		a.query(t, "-c", fmt.Sprintf("UPDATE hits SET day = day - %d WHERE day = current_date", day.ago))
	}
	at := startBrowser(t, "").newTab(t)
	address, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(login, ":")
	address.User = url.UserPassword(user, password)
	at.open(t, address.String()+"/")
	var tables [][]string
	at.eval(t, rows, &tables)
	want := [][]string{
		{"Key: Hits", "All keys: 41", "b: 31", "old: 7", "a: 3"},
		{"Key: Hits", "All keys: 1,546", "a: 1,003", "old: 512", "b: 31"},
	}
	if !reflect.DeepEqual(tables, want) {
		t.Errorf("the tables are %q, want %q", tables, want)
	}
	// bars is the days that have hits, counted from the first one, and their heights.
	const bars = `[...document.querySelectorAll("rect")].map((bar, i) => [i, Number(bar.getAttribute("height"))])
		.filter(([, height]) => height > 0).map(([i, height]) => i + ": " + Math.round(height * 10) / 10)`
	var got []string
	at.eval(t, bars, &got)
	if want := []string{"0: 100", "22: 0.3", "23: 2.5", "29: 0.3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the bars of all keys are %q, want %q", got, want)
	}
	at.click(t, "tr:nth-child(4) a") // old, in the table of the last 7 days
	at.waitLoad(t)
	at.eval(t, bars, &got)
	if want := []string{"0: 100", "22: 1", "23: 1.4"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the bars of a key are %q, want %q", got, want)
	}
	at.eval(t, rows, &tables)
	if want := [][]string{{"Last 7 days: 7", "Last 30 days: 512"}}; !reflect.DeepEqual(tables, want) {
		t.Errorf("the table of a key is %q, want %q", tables, want)
	}
	if _, seen := a.opened(t, "a"); seen.Count != 1003 {
		t.Errorf("a was opened %d times, want 1,003: those of all days", seen.Count)
	}

	// The README's statement removes the days before the last 400.
	readme, err := os.ReadFile("../../../testdata/recipes/express/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, statement, _ := strings.Cut(string(readme), `$ psql -d hits -c "`)
	statement, _, _ = strings.Cut(statement, `"`)
	a.query(t, "-c", "UPDATE hits SET day = day - 370 WHERE day < current_date")
	a.query(t, "-c", statement)
	if got, want := a.counts(t), map[string]int64{"a": 1003, "b": 31, "old": 512}; !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v are left, want %v", statement, got, want)
	}
}

// The page has the last 30 days on every day of the year, also where a day of summer
// time begins at one o'clock, because there is no midnight.
func TestPageHasTodayInEveryTimeZone(t *testing.T) {
	t.Parallel()
	p := startPostgres(t, "fsync=off")
	p.query(t, "-f", recipe+"express/schema.sql")
	app, err := os.ReadFile(recipe + "express/app.js")
	if err != nil {
		t.Fatal(err)
	}
	_, perDay, _ := strings.Cut(string(app), "const perDay = (condition) => `")
	perDay, _, found := strings.Cut(perDay, "`;")
	if !found || !strings.Contains(perDay, "current_date") || !strings.Contains(perDay, "${condition}") {
		t.Fatalf("app.js has no statement of the days: %s", perDay)
	}
	perDay = strings.NewReplacer("${condition}", "", "current_date", "today").Replace(perDay)
	zones := []string{
		"America/Santiago", "Asia/Beirut", "Africa/Cairo", "Atlantic/Azores", "America/Havana", "Europe/Berlin", "UTC",
	}
	for _, zone := range zones {
		// Each row of hits is of a day; the page of a day has 30 days, each with one hit.
		got := p.query(t, "-c", "SET timezone = '"+zone+"'", "-c", `
			TRUNCATE hits;
			INSERT INTO hits SELECT sha256('a'), '2025-01-01'::date + n, 'a', 1, now(), now() FROM generate_series(0, 760) AS n;
			SELECT today, count(*), min(page.day), max(page.day), sum(page.count)
			FROM (SELECT '2026-01-01'::date + n AS today FROM generate_series(0, 365) AS n) AS days,
				LATERAL (`+perDay+`) AS page
			GROUP BY today
			HAVING (count(*), min(page.day)::date, max(page.day)::date, sum(page.count)) <> (30, today - 29, today, 30)
			ORDER BY today`)
		if len(got) > 0 {
			t.Errorf("%s: on %d days the page has not the last 30 days: %.500q", zone, len(got), got)
		}
	}
}

// The pages show what clients invented as text, on a phone too.
func TestPageShowsHostileKeysAsText(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	shown := map[string]string{
		`<script>document.title = "hit"</script>`:            "",
		`"><img src=x onerror="document.title = 'hit'">`:     "",
		`' onclick='document.title = "hit"' x='`:             "",
		`</title></pre></bdi></style><style>*{display:none}`: "",
		`javascript:document.title = "hit"`:                  "",
		"&lt;b&gt; &amp; &#60;":                              "",
		"${document.title} `${1}`":                           "",
		"$& $1 $' \\":                                        "",
		"https://example.com/?a=b&c=d#\"e":                   "",
		"a\x00b":                                             `a\u0000b`,
		"a\nb\x1b":                                           `a\u000ab\u001b`,
		"exe.\u202egif":                                      `exe.\u202egif`,
		strings.Repeat("<b>", 7000):                          "",
		strings.Repeat("🙂", 20000):                           "",
		strings.Repeat("\x00", 20000):                        "",
	}
	counts := make(map[string]int64)
	for key, text := range shown {
		if text == "" {
			shown[key] = strings.ReplaceAll(key, "\x00", `\u0000`)
		}
		counts[key] = 1
	}
	a.save(t, counts)
	at := startBrowser(t, "").newTab(t)
	at.call(t, "Emulation.setDeviceMetricsOverride",
		map[string]any{"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true}, nil)
	user, password, _ := strings.Cut(login, ":")
	front := strings.Replace(a.url, "://", "://"+url.UserPassword(user, password).String()+"@", 1)
	at.open(t, front+"/")
	// check fails if a page has what its own HTML does not have, or is wider than the phone.
	check := func(title string) {
		t.Helper()
		var state struct {
			Title             string
			Foreign, Handlers int
			Width             int
		}
		at.eval(t, `({
			title: document.title,
			foreign: document.querySelectorAll("script, img, b, iframe, style + style").length,
			handlers: [...document.querySelectorAll("*")].filter(
				(e) => [...e.attributes].some((a) => a.name.startsWith("on"))).length,
			width: document.documentElement.scrollWidth,
		})`, &state)
		if state.Title != title || state.Foreign > 0 || state.Handlers > 0 || state.Width > 360 {
			t.Errorf("%+v, want the title %q, nothing of a client, and a width of 360", state, title)
		}
	}
	check("Hits")
	var links []string
	at.eval(t, `[...document.querySelectorAll("section:first-child a")].map((a) => a.getAttribute("href"))`, &links)
	if len(links) != len(shown) {
		t.Fatalf("%d keys are shown, want %d", len(links), len(shown))
	}
	left := make(map[string]bool)
	for _, text := range shown {
		left[text] = true
	}
	for _, link := range links {
		at.open(t, front+link)
		var text, title string
		at.eval(t, `document.querySelector("pre").textContent`, &text)
		at.eval(t, `document.title`, &title)
		if !left[text] {
			t.Errorf("%s shows %.100q", link, text)
		}
		delete(left, text)
		if len(title) > 800 {
			t.Errorf("%s has a title of %d bytes", link, len(title))
		}
		check(title)
	}
	for text := range left {
		t.Errorf("no page shows %.100q", text)
	}
}

// The pages need the login, and there are none without one; the application still
// takes flushes then.
func TestPageAsksForTheLogin(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	a.save(t, map[string]int64{"a": 1})
	id := a.query(t, "-c", "SELECT encode(id, 'hex') FROM hits")[0][0]
	user, password, _ := strings.Cut(login, ":")
	for _, c := range []struct {
		path, user, password string
		status               int
	}{
		{"/", "", "", 401},
		{"/keys/" + id, "", "", 401},
		{"/nothing", "", "", 401},
		{"/", user, "", 401},
		{"/", "", password, 401},
		{"/", user, password + "x", 401},
		{"/", user, secret, 401},
		{"/", user, password, 200},
		{"/keys/" + id, user, password, 200},
		{"/keys/" + id[2:], user, password, 404},
		{"/keys/..%00'", user, password, 404},
		{"/keys/%zz", user, password, 400},
	} {
		request, err := http.NewRequest("GET", a.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.Opaque = c.path
		if c.user+c.password != "" {
			request.SetBasicAuth(c.user, c.password)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%+v: status %d", c, answer.StatusCode)
		}
		if asks := strings.HasPrefix(answer.Header.Get("WWW-Authenticate"), "Basic "); asks != (c.status == 401) {
			t.Errorf("%+v: the answer asks for a login: %v", c, asks)
		}
		if c.status == 200 && !strings.Contains(answer.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%+v: the answer allows scripts", c)
		}
		if c.status != 200 && strings.Contains(string(text), "<svg") {
			t.Errorf("%+v: the answer has a plot", c)
		}
	}

	for value, want := range map[string]string{"": "set LOGIN to user:password", "editor": "set LOGIN to user:password",
		"editor:": "set LOGIN to user:password"} {
		cmd := exec.Command("node", "app.js")
		cmd.Dir, cmd.Env = a.process.Cmd.Dir, append(a.process.Cmd.Env, "LOGIN="+value)
		if text, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(text), want) {
			t.Errorf("LOGIN=%s: %v\n%s", value, err, text)
		}
	}
	port, output := rig.FreePort(t), rig.NewOutput()
	cmd := exec.Command("node", "app.js")
	cmd.Dir, cmd.Env = a.process.Cmd.Dir, append(os.Environ(), append(a.env(), "SECRET="+secret, "PORT="+port)...)
	rig.Start(t, cmd, output, output)
	without := &application{postgres: a.postgres, url: "http://127.0.0.1:" + port}
	output.WaitLine(t, 0, "Saving hits at "+without.url+"/save_hits")
	without.save(t, map[string]int64{"a": 1})
	answer, err := http.Get(without.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != 404 {
		t.Errorf("status %d of the page without LOGIN, want 404", answer.StatusCode)
	}
}

// The README's upgrade turns the table before version 1.1 into that of schema.sql, and
// keeps the counts.
func TestUpgradeOfTheDatabase(t *testing.T) {
	t.Parallel()
	a := startApplication(t, "fsync=off")
	const columns = `SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
		WHERE table_schema = 'public' ORDER BY table_name, column_name`
	const indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
	want := fmt.Sprint(a.query(t, "-c", columns), a.query(t, "-c", indexes))
	a.query(t, "-c", `DROP TABLE hits, flushes;
		CREATE TABLE hits (id bytea PRIMARY KEY, key text NOT NULL, count bigint NOT NULL,
			first_seen timestamptz NOT NULL, last_seen timestamptz NOT NULL);
		INSERT INTO hits VALUES (sha256('a'), 'a', 40, now() - interval '9 days', now() - interval '2 days')`)
	a.query(t, "-f", filepath.Join("../../../testdata/recipes/express", "upgrade.sql"))
	if got := fmt.Sprint(a.query(t, "-c", columns), a.query(t, "-c", indexes)); got != want {
		t.Errorf("the upgrade makes\n%s\nwant\n%s", got, want)
	}
	a.save(t, map[string]int64{"a": 2})
	if _, seen := a.opened(t, "a"); seen.Count != 42 || seen.Last.Sub(seen.First).Hours() < 9*24-1 {
		t.Errorf("%+v, want the count 42, first 9 days ago", seen)
	}
	days := a.query(t, "-c", "SELECT current_date - day, count FROM hits ORDER BY day")
	if got := fmt.Sprint(days); got != "[[2 40] [0 2]]" {
		t.Errorf("the days before today, and their counts, are %s", got)
	}
}
