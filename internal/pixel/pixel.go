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

//go:embed pixel.gif
var gif []byte

// pixelHeader is the header of the pixel: the original's four fields, and one
// with which pages may embed it that ask everything they load for leave
// (Cross-Origin-Embedder-Policy: require-corp). Header.Set would make a slice
// of each value at each hit; net/http only reads these.
var pixelHeader = []struct {
	name   string
	values []string
}{
	{"Cache-Control", []string{"private, no-cache, proxy-revalidate, max-age=0"}},
	{"Content-Type", []string{"image/gif"}},
	{"Content-Disposition", []string{"inline"}},
	{"Content-Length", []string{"35"}},
	{"Cross-Origin-Resource-Policy", []string{"cross-origin"}},
}

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
// made of it: that one is unescaped, and split at other places. What net/http
// cannot make a URL of it has refused with 400 before, such as a path with a
// broken escape, which the original answers with 404.
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
	for i := range pixelHeader {
		header[pixelHeader[i].name] = pixelHeader[i].values
	}
	w.Write(gif)
}

// dropBody sends the answer, and only then reads the body that came with the
// request, as Node does: by itself, net/http waits for the body before it sends
// anything. The body has to be read to its end here, as a connection in full
// duplex is of no more use to net/http when some of it is left. Where it is
// broken, or does not end within the time there is for a request, the connection
// ends: what follows must not be taken for a request.
func dropBody(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).Flush()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		panic(http.ErrAbortHandler)
	}
}
