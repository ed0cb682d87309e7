// Receiver is a complete application for Pixel Ping to post its counts to. It
// receives each flush, checks the secret, adds the counts up in memory, prints the
// totals and shows them on a page. Start your own from it; yours would add the counts
// up in a database, in one transaction with the id of the flush:
//
//	INSERT INTO flushes (id) VALUES ($1) ON CONFLICT DO NOTHING
//
//	INSERT INTO hits (key, count) VALUES ($1, $2)
//	ON CONFLICT (key) DO UPDATE SET count = hits.count + excluded.count
//
// If the first statement inserts nothing, the flush was saved before and only its
// answer was lost: then leave out the second one.
package main

import (
	"cmp"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html/template"
	"log"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"
)

//go:embed page.html
var page string

func main() {
	listen := flag.String("listen", "127.0.0.1:9188", "the `address` to listen on")
	secret := flag.String("secret", "swordfish", "the secret of the daemon's configuration")
	pixel := flag.String("pixel", "http://localhost:9187/pixel.gif", "the `URL` of the daemon's pixel, for the page")
	flag.Parse()
	app := &application{secret: *secret, totals: make(map[string]int64), saved: make(map[string]time.Time)}
	parsed := template.Must(template.New("page").Parse(page))
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { parsed.Execute(w, *pixel) })
	http.HandleFunc("GET /totals", app.show)
	http.HandleFunc("POST /save_hits", app.save)
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// idLife is how long the ids of flushes are kept: longer than any outage after which
// the daemon sends the same flush again.
const idLife = 7 * 24 * time.Hour

// application keeps the totals. mu guards the fields below it, since each request
// runs in a goroutine of its own.
type application struct {
	secret string

	mu      sync.Mutex
	totals  map[string]int64
	saved   map[string]time.Time // when each flush was saved, by the id of the flush
	flushes []flush              // the last ones, for the plot
}

// flush is one bar of the plot.
type flush struct {
	Time time.Time
	Hits int64
}

// save saves one flush, and answers with 2xx only after that. After any other
// answer the daemon keeps the counts and sends them again with the next flush.
func (a *application) save(w http.ResponseWriter, r *http.Request) {
	// Without MaxBytesReader, ParseForm refuses bodies above 10 MB, and says 400.
	r.Body = http.MaxBytesReader(w, r.Body, 16<<20)
	if err := r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	if !r.PostForm.Has("json") {
		http.Error(w, "the form has no json", http.StatusBadRequest)
		return
	}
	if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("secret")), []byte(a.secret)) != 1 {
		http.Error(w, "the secret is wrong", http.StatusForbidden)
		return
	}
	var hits map[string]int64
	err := json.Unmarshal([]byte(r.PostForm.Get("json")), &hits)
	if err != nil || hits == nil || len(hits) > 0 && slices.Min(slices.Collect(maps.Values(hits))) < 1 {
		http.Error(w, "json is not an object of counts", http.StatusBadRequest)
		return
	}
	id := r.Header.Get("Idempotency-Key")
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.saved[id]; known {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	maps.DeleteFunc(a.saved, func(_ string, at time.Time) bool { return time.Since(at) > idLife })
	if id != "" {
		a.saved[id] = time.Now()
	}
	now := flush{Time: time.Now()}
	for _, key := range slices.Sorted(maps.Keys(hits)) {
		// The counts are those since the last flush, so they are added.
		a.totals[key] += hits[key]
		now.Hits += hits[key]
		fmt.Printf("application: %q, %d in all\n", key, a.totals[key])
	}
	a.flushes = append(a.flushes, now)
	a.flushes = a.flushes[max(0, len(a.flushes)-maxFlushes):]
	w.WriteHeader(http.StatusNoContent)
}

// The page shows as many bars as fit on a phone, and as many keys as anybody reads:
// clients can invent any number of keys.
const maxFlushes, maxKeys = 60, 50

// show answers with what the page shows, as JSON.
func (a *application) show(w http.ResponseWriter, r *http.Request) {
	type total struct {
		Key  string
		Hits int64
	}
	a.mu.Lock()
	answer := struct {
		Totals  []total
		Flushes []flush
	}{make([]total, 0, len(a.totals)), append([]flush{}, a.flushes...)}
	for key, hits := range a.totals {
		answer.Totals = append(answer.Totals, total{key, hits})
	}
	a.mu.Unlock()
	slices.SortFunc(answer.Totals, func(x, y total) int {
		return cmp.Or(cmp.Compare(y.Hits, x.Hits), cmp.Compare(x.Key, y.Key))
	})
	answer.Totals = answer.Totals[:min(len(answer.Totals), maxKeys)]
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer)
}
