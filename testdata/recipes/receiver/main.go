// Receiver is a complete application for Pixel Ping to post its counts to. It
// receives each flush, checks the secret, adds the counts up in memory and prints
// the totals. Start your own from it; yours would add the counts up in a database:
//
//	INSERT INTO hits (key, count) VALUES ($1, $2)
//	ON CONFLICT (key) DO UPDATE SET count = hits.count + excluded.count
package main

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"net/http"
	"slices"
	"sync"
)

func main() {
	listen := flag.String("listen", "localhost:9188", "the `address` to listen on")
	secret := flag.String("secret", "swordfish", "the secret of the daemon's configuration")
	flag.Parse()
	http.Handle("POST /save_hits", &application{secret: *secret, totals: make(map[string]int64)})
	log.Fatal(http.ListenAndServe(*listen, nil))
}

// application keeps the totals. mu guards totals, since each request runs in a
// goroutine of its own.
type application struct {
	secret string
	mu     sync.Mutex
	totals map[string]int64
}

// ServeHTTP saves one flush, and answers with 2xx only after that. After any other
// answer the daemon keeps the counts and sends them again with the next flush.
func (a *application) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<20)
	if err := r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	if subtle.ConstantTimeCompare([]byte(r.PostForm.Get("secret")), []byte(a.secret)) != 1 {
		http.Error(w, "the secret is wrong", http.StatusForbidden)
		return
	}
	var hits map[string]int64
	if err := json.Unmarshal([]byte(r.PostForm.Get("json")), &hits); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(hits)) {
		// The counts are those since the last flush, so they are added.
		a.totals[key] += hits[key]
		fmt.Printf("application: %q, %d in all\n", key, a.totals[key])
	}
	w.WriteHeader(http.StatusNoContent)
}
