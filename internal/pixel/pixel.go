// Package pixel serves the tracking pixel: it turns a request for
// /pixel.gif?key=… into a recorded hit and a 1x1 GIF, and anything else into a
// 404. It is the first step of a hit. It sees the Recorder and nothing behind
// it, so a request cannot reach the network.
package pixel

import (
	_ "embed"
	"io"
	"net/http"

	"pixel-ping/internal/node"
)

// Path is the one path that is served, byte for byte.
const Path = "/pixel.gif"

// maxBody is how much of a request's body is read, in bytes, for the connection
// to be kept.
const maxBody = 256 << 10

//go:embed pixel.gif
var gif []byte

// A Recorder adds a hit to a key. It is called by many goroutines at once, and
// must not keep key: the string is part of the request.
type Recorder interface {
	Record(key string)
}

// Handler answers every request to the server (the function the original
// passes to createServer). It is safe for concurrent use.
type Handler struct {
	Hits Recorder
}

// ServeHTTP reads the target as the client wrote it, not the URL that net/http
// made of it: that one is unescaped, split at other places, and refused where
// Node refuses nothing.
//
// The hit is recorded before it is answered (the original does it the other
// way round), so that a hit whose answer was seen is never missing from the
// last flush.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Another expectation than this one net/http has answered with 417.
	if r.Header.Get("Expect") != "" && r.ProtoAtLeast(1, 1) {
		w.WriteHeader(http.StatusContinue)
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		http.NewResponseController(w).EnableFullDuplex()
		defer dropBody(w, r)
	}
	header := w.Header()
	if !node.ValidRequest(r.Method, r.RequestURI) {
		header.Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	path, query := node.SplitTarget(r.RequestURI)
	if path != Path {
		header.Set("Content-Type", "text/html")
		header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if key := node.QueryValue(query, "key"); key != "" {
		h.Hits.Record(key)
	}
	header.Set("Cache-Control", "private, no-cache, proxy-revalidate, max-age=0")
	header.Set("Content-Type", "image/gif")
	header.Set("Content-Disposition", "inline")
	header.Set("Content-Length", "35")
	w.Write(gif)
}

// dropBody sends the answer, and only then reads the body that came with the
// request, as Node does: by itself, net/http waits for the body before it sends
// anything. It has to be read here, as a connection in full duplex is of no
// more use to net/http when a body is left to it; so one that is too long for
// that ends the connection.
func dropBody(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).Flush()
	if _, err := io.CopyN(io.Discard, r.Body, maxBody); err == nil {
		panic(http.ErrAbortHandler)
	}
}
