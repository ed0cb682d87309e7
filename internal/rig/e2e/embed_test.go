//go:build unix

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The recipes of testdata/recipes/embed work in Chromium as documented. The tests
// share one browser; each has its own tab, pages and daemon. The pages and the pixel
// belong to different sites.
func TestEmbedding(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Warm", testWarm}, // the first, because it takes the longest
		{"View", testView},
		{"Keys", testKeys},
		{"Repeated", testRepeated},
		{"Data", testData},
		{"Base64", testBase64},
		{"CutEmoji", testCutEmoji},
		{"Leaving", testLeaving},
		{"Clicks", testClicks},
		{"Firefox", testFirefox},
		{"NoBeacon", testNoBeacon},
		{"Address", testAddress},
		{"Prerender", testPrerender},
		{"ServiceWorker", testServiceWorker},
		{"Dark", testDark},
		{"NoPreflight", testNoPreflight},
		{"NoScript", testNoScript},
		{"Mail", testMail},
		{"EmbedderPolicy", testEmbedderPolicy},
		{"ContentPolicy", testContentPolicy},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, w)
		})
	}
}

// The buttons of events.html.
const share, vote = "button", "button + button"

// A view is a hit, and a reload is another one, although the browser does not load a
// cacheable picture again.
func testView(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "page.html")
	s.check(t, map[string]int64{"article-42": 1})
	at.reload(t)
	s.check(t, map[string]int64{"article-42": 2})

	var loaded atomic.Int64
	cached := w.serve(t, "pictures.example.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		loaded.Add(1)
		w.Header().Set("Cache-Control", "max-age=3600")
		http.ServeFile(w, r, "../../pixel/pixel.gif")
	}))
	at.open(t, w.serve(t, "www.example.org", recipes(cached, "Content-Language", "en"))+"/page.html")
	at.reload(t)
	if n := loaded.Load(); n != 1 {
		t.Errorf("a cacheable picture is loaded %d times, want once", n)
	}
}

// Every key is counted as the page wrote it.
func testKeys(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	keys := []string{
		"&=+%#;,\"'<>?/\\", "%41", "%", "a+b c", "a,b", "key=a&key=b", "a\nb\r\n", "</script>",
		"__proto__", "constructor", "42", "-1", "null",
		"é", "e\u0301", "你好", "العربية", "👍🏽", "🏳️‍🌈", "\u0080", "\u2028", "\ufeff", "\ufffd", "\U0010ffff",
		strings.Repeat("x", 8000),
	}
	var all strings.Builder
	for c := range rune(128) {
		all.WriteRune(c)
		keys = append(keys, string(c))
	}
	keys = append(keys, all.String())
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	at.eval(t, fmt.Sprintf("%s.forEach(track)", text), nil)
	want := make(map[string]int64)
	for _, key := range keys {
		want[key]++
	}
	s.check(t, want)
}

// Equal events are separate hits, also when hundreds happen at once and no variable
// keeps their images alive. A page loads an image with the same address only once.
func testRepeated(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.click(t, share)
	at.click(t, share)
	s.check(t, map[string]int64{"share article-42": 2})
	at.eval(t, `for (let i = 0; i < 300; i++) track("at once")`, nil)
	at.call(t, "HeapProfiler.collectGarbage", nil, nil)
	s.check(t, map[string]int64{"share article-42": 2, "at once": 300})

	const image = `new Promise(loaded => {
		const image = new Image();
		image.onload = loaded;
		image.src = pixel + "?key=same";
	}).then(() => true)`
	at.eval(t, image, nil)
	at.eval(t, image, nil)
	s.check(t, map[string]int64{"share article-42": 2, "at once": 300, "same": 1})
}

// An event carries data as JSON in the key, and the data arrives unchanged.
func testData(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.click(t, vote)
	s.check(t, map[string]int64{`{"event":"vote","stars":5,"title":"1 + 1 = 2 & “你好”"}`: 1})

	data := map[string]any{
		"text":   "\"quoted\" \\ / \n\t\x00 +&=%#;, %2B </script> é 你 👍🏽",
		"nested": []any{map[string]any{"é=&": nil}, true, 0.5, "", []any{}},
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	var key string
	at.eval(t, fmt.Sprintf("(() => { const key = JSON.stringify(%s); track(key); return key; })()", text), &key)
	s.check(t, map[string]int64{`{"event":"vote","stars":5,"title":"1 + 1 = 2 & “你好”"}`: 1, key: 1})
	for counted := range s.hits {
		var got any
		if err := json.Unmarshal([]byte(counted), &got); err != nil {
			t.Errorf("%s: %v", counted, err)
		} else if counted == key && !reflect.DeepEqual(got, any(data)) {
			t.Errorf("%v was counted, want %v", got, data)
		}
	}
}

// The common snippet with btoa and without encodeURIComponent fails: each + of the
// base64 text is counted as a space, and btoa throws an exception for text that is
// not Latin-1.
func testBase64(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	var encoded string
	at.eval(t, `(() => {
		const encoded = btoa(JSON.stringify({ title: "a>>b" }));
		new Image().src = pixel + "?key=" + encoded;
		return encoded;
	})()`, &encoded)
	if !strings.Contains(encoded, "+") {
		t.Fatalf("%s has no +", encoded)
	}
	broken := strings.ReplaceAll(encoded, "+", " ")
	s.check(t, map[string]int64{broken: 1})
	if _, err := base64.StdEncoding.DecodeString(broken); err == nil {
		t.Errorf("%q can be decoded", broken)
	}
	var thrown string
	at.eval(t, `(() => { try { btoa(JSON.stringify({ title: "你好" })) } catch (e) { return e.name } })()`, &thrown)
	if thrown != "InvalidCharacterError" {
		t.Errorf("btoa throws %q", thrown)
	}
}

// Leaving a page is counted, whether the user follows a link or closes the tab. So
// is the click on the link. A page that is hidden twice is counted once.
func testLeaving(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.click(t, "a")
	at.waitLoad(t)
	s.check(t, map[string]int64{"to another article": 1, "left article-42": 1, "article-42": 1})

	s.open(t, "events.html").close(t)
	s.check(t, map[string]int64{"to another article": 1, "left article-42": 2, "article-42": 1})

	at = s.open(t, "events.html")
	at.eval(t, `
		Object.defineProperty(document, "visibilityState", { value: "hidden" });
		document.dispatchEvent(new Event("visibilitychange"));
		document.dispatchEvent(new Event("visibilitychange"));
	`, nil)
	s.check(t, map[string]int64{"to another article": 1, "left article-42": 3, "article-42": 1})
}

// A key that was cut inside an emoji is counted, with U+FFFD for the half of the emoji,
// in a browser without toWellFormed, too.
func testCutEmoji(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	const events = `track("👍".slice(0, 1) + " cut 👍"); trackLeaving("cut " + "👍".slice(1)); track(42)`
	at.eval(t, events, nil)
	at.eval(t, "delete String.prototype.toWellFormed; "+events, nil)
	s.check(t, map[string]int64{"\ufffd cut 👍": 2, "cut \ufffd": 2, "42": 2})
}

// stay is a script after which no click opens a page: that would count hits of its own.
const stay = `for (const type of ["click", "auxclick"]) addEventListener(type, (event) => event.preventDefault())`

// A click on a tracked link counts, whether it opens the page here, in a new tab or in
// a new window. A click of the right button, which opens a menu, does not count.
func testClicks(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.eval(t, stay, nil)
	want := make(map[string]int64)
	for _, click := range []struct {
		button    string
		modifiers int
		counts    int64
	}{{"right", 0, 0}, {"left", 0, 1}, {"left", 2, 1}, {"left", 8, 1}, {"middle", 0, 1}} {
		at.clickWith(t, "a", click.button, click.modifiers)
		want["to another article"] += click.counts
		s.check(t, want)
	}
}

// Leaving the page is counted with an image where beacons are off, as in a Firefox
// with beacon.enabled=false, or where the browser refuses one, as when too many are
// under way.
func testNoBeacon(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.eval(t, `navigator.sendBeacon = () => false; trackLeaving("refused")`, nil)
	s.check(t, map[string]int64{"refused": 1})
	at.eval(t, `navigator.sendBeacon = undefined; trackLeaving("off")`, nil)
	s.check(t, map[string]int64{"refused": 1, "off": 1})
}

// The script without a key counts a view of the page's own address, without query and
// fragment. It counts the key in data-key if there is one.
func testAddress(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "view.html?session=1#part")
	want := map[string]int64{s.pages + "/view.html": 1}
	s.check(t, want)
	at.eval(t, `{
		const script = document.createElement("script");
		script.src = "view.js";
		script.dataset.key = "article-42";
		document.body.append(script);
	}`, nil)
	want["article-42"] = 1
	s.check(t, want)
}

// A page that the browser prerenders counts its plain image at once, whether anybody
// sees the page or not. The script counts the view once the page is shown. Chromium
// prerenders nothing in a tab that DevTools watch, so the page itself follows its link.
func testPrerender(t *testing.T, w *world) {
	s := w.newSite(t)
	files := recipes(s.pixel, "Content-Language", "en")
	following, follow := context.WithCancel(t.Context())
	s.pages = w.serve(t, "www.example.org", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/links.html":
			fmt.Fprint(w, `<!doctype html><script type="speculationrules">
				{"prerender": [{"urls": ["shown.html"], "eagerness": "immediate"}]}</script>
				<script>fetch("follow").then(() => { location.href = "shown.html" })</script>`)
		case "/follow":
			<-following.Done()
		case "/shown.html":
			// The image comes after the script, so its hit shows that the script has run.
			fmt.Fprintf(w, `<!doctype html><script src="view.js"></script>
				<img src="%s/pixel.gif?key=plain" alt="">`, s.pixel)
		default:
			files.ServeHTTP(w, r)
		}
	}))
	w.browser.call(t, "", "Target.createTarget", map[string]any{"url": s.pages + "/links.html"}, nil)
	s.check(t, map[string]int64{"plain": 1})
	follow()
	s.check(t, map[string]int64{"plain": 1, s.pages + "/shown.html": 1})
}

// A service worker that caches images leaves the pixel alone, so each view counts.
func testServiceWorker(t *testing.T, w *world) {
	var loaded atomic.Int64
	s := w.newSite(t)
	files := recipes(s.pixel, "Content-Language", "en")
	s.pages = w.serve(t, "www.example.org", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/picture.gif" {
			loaded.Add(1)
			http.ServeFile(w, r, "../../pixel/pixel.gif")
			return
		}
		files.ServeHTTP(w, r)
	}))
	at := s.open(t, "page.html")
	at.eval(t, `navigator.serviceWorker.register("service-worker.js")
		.then(() => navigator.serviceWorker.ready).then(() => true)`, nil)
	const show = `new Promise((done) => {
		const image = new Image();
		image.onload = () => done(true);
		image.src = "picture.gif";
	})`
	for range 3 {
		at.reload(t)
		at.eval(t, show, nil)
	}
	s.check(t, map[string]int64{"article-42": 4})
	if n := loaded.Load(); n != 1 {
		t.Errorf("a picture is loaded %d times, want once: the service worker caches it", n)
	}
}

// The pixel is an opaque white dot, as the original's is. The image of page.html leaves
// no trace on a dark page.
func testDark(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "page.html")
	shot := func() (picture string) {
		t.Helper()
		var taken struct{ Data string }
		at.call(t, "Page.captureScreenshot", nil, &taken)
		return taken.Data
	}
	at.eval(t, `document.documentElement.style.background = "black"`, nil)
	styled := shot()
	at.eval(t, `document.images[0].hidden = false`, nil)
	if plain := shot(); plain == styled {
		t.Error("a white dot on a dark page cannot be seen")
	}
	at.eval(t, `document.images[0].remove()`, nil)
	if without := shot(); without != styled {
		t.Error("the image of the pixel can be seen on a dark page")
	}
	s.check(t, map[string]int64{"article-42": 1})
}

// An image without a key opens the connection and is not counted. Later events use
// that connection, even after 7 idle seconds. Node would have closed it after 6.
func testWarm(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	s.check(t, nil)
	s.checkConnection(t, 1)
	<-time.After(7 * time.Second)
	at.click(t, share)
	s.check(t, map[string]int64{"share article-42": 1})
	s.checkConnection(t, 2)
	at.waitAnswer(t, "share")
	at.eval(t, `trackLeaving("bye")`, nil)
	s.check(t, map[string]int64{"share article-42": 1, "bye": 1})
	s.checkConnection(t, 3)
}

// waitAnswer waits until the page has the answer to a request whose address contains
// part. The daemon counts a hit before it answers, and until the answer arrives, the
// browser would use another connection.
func (at *tab) waitAnswer(t *testing.T, part string) {
	t.Helper()
	at.eval(t, `new Promise(done => {
		const observer = new PerformanceObserver(list => {
			if (list.getEntries().some(entry => entry.name.includes("`+part+`"))) done(true);
		});
		observer.observe({ type: "resource", buffered: true });
	})`, nil)
}

// checkConnection fails the test unless one connection has carried this number of
// requests and no other connection has carried any.
func (s *site) checkConnection(t *testing.T, requests int) {
	t.Helper()
	if conns := s.tap.requests(); len(conns) != 1 || len(conns[0]) != requests {
		t.Errorf("the requests of each connection are %q, want %d of one", conns, requests)
	}
}

// An event is one request. The browser sends no preflight request before it, as it
// does before a request with a custom header.
func testNoPreflight(t *testing.T, w *world) {
	s := w.newSite(t)
	at := s.open(t, "events.html")
	at.click(t, share)
	at.eval(t, `trackLeaving("bye")`, nil)
	s.check(t, map[string]int64{"share article-42": 1, "bye": 1})
	methods := func() map[string]int {
		methods := make(map[string]int)
		for _, requests := range s.tap.requests() {
			for _, request := range requests {
				method, _, _ := strings.Cut(request, " ")
				methods[method]++
			}
		}
		return methods
	}
	if got := methods(); !reflect.DeepEqual(got, map[string]int{"GET": 2, "POST": 1}) {
		t.Errorf("page, event and beacon make the requests %v", got)
	}
	at.eval(t, `fetch(pixel, { headers: { "X-Event": "share" } }).catch(() => true)`, nil)
	if got := methods(); got["OPTIONS"] != 1 {
		t.Errorf("with a custom header, the requests are %v, want an OPTIONS", got)
	}
}

// The image in noscript counts visitors without JavaScript.
func testNoScript(t *testing.T, w *world) {
	s := w.newSite(t)
	at := w.browser.newTab(t)
	at.call(t, "Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	at.open(t, s.pages+"/events.html")
	s.check(t, map[string]int64{"no script": 1})
}

// An e-mail is counted when webmail shows it in a sandboxed frame.
func testMail(t *testing.T, w *world) {
	s := w.newSite(t)
	text, err := os.ReadFile("../../../testdata/recipes/embed/mail.html")
	if err != nil {
		t.Fatal(err)
	}
	// Chromium would load it.
	_, image, _ := strings.Cut(string(text), "<img ")
	if strings.Contains(image, "hidden") || strings.Contains(image, "display") {
		t.Errorf("some mail readers do not load a hidden image: %s", image)
	}
	mail := strings.ReplaceAll(string(text), pixelHost+"/", s.pixel+"/")
	webmail := w.serve(t, "mail.example.net", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, `<!doctype html><iframe sandbox srcdoc="%s"></iframe>`, html.EscapeString(mail))
	}))
	w.browser.newTab(t).open(t, webmail)
	s.check(t, map[string]int64{"newsletter-7": 1})
}

// loaded reports whether the first image of the page was loaded and not blocked.
func (at *tab) loaded(t *testing.T) bool {
	t.Helper()
	var width int
	at.eval(t, `document.images[0].naturalWidth`, &width)
	return width == 1
}

// A page with the policy require-corp loads the pixel, but no image without
// Cross-Origin-Resource-Policy. An image with the attribute crossorigin is not loaded
// from the daemon.
func testEmbedderPolicy(t *testing.T, w *world) {
	s := w.newSite(t)
	other := w.serve(t, "pictures.example.com", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, "../../pixel/pixel.gif")
	}))
	at := w.browser.newTab(t)
	for _, test := range []struct {
		policy, pixel string
		loaded        bool
	}{
		{"require-corp", s.pixel, true},
		{"require-corp", other, false},
		{"unsafe-none", other, true},
	} {
		pages := w.serve(t, "www.example.org", recipes(test.pixel, "Cross-Origin-Embedder-Policy", test.policy))
		at.open(t, pages+"/page.html")
		if at.loaded(t) != test.loaded {
			t.Errorf("under %s the image of %s is loaded: %v", test.policy, test.pixel, !test.loaded)
		}
	}
	s.check(t, map[string]int64{"article-42": 1})

	var shown bool
	at.eval(t, `new Promise(done => {
		const image = new Image();
		image.onload = () => done(true);
		image.onerror = () => done(false);
		image.crossOrigin = "anonymous";
		image.src = "`+s.pixel+`/pixel.gif";
	})`, &shown)
	if shown {
		t.Error("an image with the attribute crossorigin is loaded")
	}
}

// A content security policy must name the pixel's address for images and for beacons.
func testContentPolicy(t *testing.T, w *world) {
	s := w.newSite(t)
	for _, test := range []struct {
		policy string
		want   map[string]int64
	}{
		{"", nil},
		{"connect-src " + s.pixel, map[string]int64{"beacon": 1}},
		{"img-src " + s.pixel, map[string]int64{"beacon": 1, "image": 1}},
		{"img-src " + s.pixel + "; connect-src " + s.pixel, map[string]int64{"beacon": 2, "image": 2}},
	} {
		at := w.browser.newTab(t)
		policy := "default-src 'self' 'unsafe-inline'; " + test.policy
		at.open(t, w.serve(t, "www.example.org", recipes(s.pixel, "Content-Security-Policy", policy))+"/events.html")
		at.eval(t, `track("image"); trackLeaving("beacon")`, nil)
		s.check(t, test.want)
	}
}
