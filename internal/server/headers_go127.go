//go:build go1.27

package server

import "net/http"

// limitHeaders limits the number of headers, as Apache and HAProxy do by default. Small
// headers take far more memory than their bytes: with net/http's limit of 500, a client
// that sends them makes its connection take 117 kB instead of 65.
func limitHeaders(s *http.Server) { s.MaxHeaderValueCount = 100 }
