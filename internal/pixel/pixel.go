// Package pixel serves the tracking pixel: it records a hit for each request of
// /pixel.gif?key=… and answers with a 1x1 GIF, and answers any other request with
// 404. It is the first step of a hit. It imports nothing that delivers hits, so a
// request cannot reach the network.
package pixel

import (
	_ "embed"
	"errors"
	"io"
	"net/http"

	"pixel-ping/internal/node"
)

// Path is the only path that is served. A path is compared with it byte by byte.
const Path = "/pixel.gif"

//go:embed pixel.gif
var gif []byte

// pixelHeader is the header of the pixel: the original's fields and
// Cross-Origin-Resource-Policy, without which a page that is sent with
// Cross-Origin-Embedder-Policy: require-corp cannot embed the pixel. The values
// are slices because Header.Set would allocate one for each value at each hit;
// net/http only reads them.
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

// A Recorder adds a hit to a key. Many goroutines call Record at once. Record must
// not keep key, which is a part of the request's memory.
type Recorder interface {
	Record(key string)
}

// Handler answers every request to the server, as the function that the original
// passes to createServer does. It is safe for concurrent use.
type Handler struct {
	Hits Recorder
}

// ServeHTTP reads the target as the client wrote it (r.RequestURI) rather than
// r.URL, which net/http has unescaped and split by other rules. If net/http cannot
// parse a target, such as a path with a broken escape, it answers with 400 and does
// not call ServeHTTP; the original answers with 404.
//
// The hit is recorded before the answer is sent, so that the last flush has every
// hit that was answered. The original records after the answer.
func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The header is "Expect: 100-continue": net/http has answered any other with 417.
	if r.Header.Get("Expect") != "" && r.ProtoAtLeast(1, 1) {
		w.WriteHeader(http.StatusContinue)
	}
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		http.NewResponseController(w).EnableFullDuplex()
		defer discardBody(w, r)
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

// maxBody is how many bytes of a body are read, as many as net/http reads by
// itself.
const maxBody = 256 << 10

// discardBody sends the answer, then reads the body of the request, as Node does.
// Without discardBody, net/http would read the body before it sends the answer. In
// full duplex, net/http uses the connection again only if the handler has read the
// whole body. If the body is longer than maxBody, net/http closes the connection,
// after a pause in which the client receives the answer. If the body is invalid or
// never ends, discardBody closes the connection: net/http would take the rest of the
// body for a request.
func discardBody(w http.ResponseWriter, r *http.Request) {
	http.NewResponseController(w).Flush()
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); err != nil && !tooLong {
		panic(http.ErrAbortHandler)
	}
}
