//go:build !go1.27

package server

import "net/http"

// limitHeaders does nothing: net/http has no limit on the number of headers here.
func limitHeaders(*http.Server) {}
