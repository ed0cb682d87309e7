package pixel

import (
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
)

// recorder is a Recorder that keeps the keys in order.
type recorder []string

func (r *recorder) Record(key string) { *r = append(*r, key) }

// request calls the Handler with a request line, and returns the answer and the
// keys that were recorded.
func request(t *testing.T, method, target string) (*http.Response, []string) {
	t.Helper()
	var recorded recorder
	r := httptest.NewRequest(method, "/", nil)
	r.RequestURI = target
	w := httptest.NewRecorder()
	Handler{Hits: &recorded}.ServeHTTP(w, r)
	return w.Result(), recorded
}

func TestPixel(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
		answer, keys := request(t, method, "/pixel.gif?key=a+b")
		if answer.StatusCode != 200 || !reflect.DeepEqual(keys, []string{"a b"}) {
			t.Errorf("%s: status %d and keys %q, want 200 and the one key", method, answer.StatusCode, keys)
		}
		if want := (http.Header{
			"Cache-Control":                {"private, no-cache, proxy-revalidate, max-age=0"},
			"Content-Type":                 {"image/gif"},
			"Content-Disposition":          {"inline"},
			"Content-Length":               {"35"},
			"Cross-Origin-Resource-Policy": {"cross-origin"},
		}); !reflect.DeepEqual(answer.Header, want) {
			t.Errorf("%s: header %v, want %v", method, answer.Header, want)
		}
	}
}

func TestGIF(t *testing.T) {
	const want = "47494638396101000100800000ffffff0000002c00000000010001000002024401003b"
	if got := hex.EncodeToString(gif); got != want {
		t.Errorf("the pixel is %s, want %s", got, want)
	}
}

func TestPixelWithoutKeyIsNotCounted(t *testing.T) {
	for _, target := range []string{
		"/pixel.gif", "/pixel.gif?", "/pixel.gif?key", "/pixel.gif?key=", "/pixel.gif#?key=a",
	} {
		if answer, keys := request(t, "GET", target); answer.StatusCode != 200 || keys != nil {
			t.Errorf("%s: status %d and keys %q, want 200 and none", target, answer.StatusCode, keys)
		}
	}
}

func TestOtherPaths(t *testing.T) {
	for _, target := range []string{
		"/", "/favicon.ico", "//pixel.gif?key=a", "/./pixel.gif?key=a", "/pixel%2Egif?key=a", "/pixel.gif/?key=a",
		"/PIXEL.GIF?key=a", "/pixel.gif;x?key=a", "/pixel.gif%00?key=a", "*", "//user@host/pixel.gif?key=a",
	} {
		answer, keys := request(t, "GET", target)
		if answer.StatusCode != 404 || keys != nil {
			t.Errorf("%s: status %d and keys %q, want 404 and none", target, answer.StatusCode, keys)
		}
		want := http.Header{"Content-Type": {"text/html"}, "Content-Length": {"0"}}
		if !reflect.DeepEqual(answer.Header, want) {
			t.Errorf("%s: header %v, want %v", target, answer.Header, want)
		}
	}
}

func TestRequestsThatNodeRefuses(t *testing.T) {
	for _, test := range []struct{ method, target string }{
		{"GET", "/pixel.gif?key=\xc3\xa9"},
		{"GET", "/pixel.gif?key=a\x7f"},
		{"FOO", "/pixel.gif?key=a"},
		{"CONNECT", "/pixel.gif?key=a"},
	} {
		if answer, keys := request(t, test.method, test.target); answer.StatusCode != 400 || keys != nil {
			t.Errorf("%s %q: status %d and keys %q, want 400 and none", test.method, test.target, answer.StatusCode, keys)
		}
	}
}
