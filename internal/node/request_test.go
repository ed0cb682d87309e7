package node

import "testing"

func TestValidRequest(t *testing.T) {
	for c := range 256 {
		want := c >= 0x21 && c <= 0x7E
		if got := ValidRequest("GET", "/pixel.gif?key="+string([]byte{byte(c)})); got != want {
			t.Errorf("byte %#02x in the target: valid is %v, want %v", c, got, want)
		}
	}
	for method, want := range map[string]bool{
		"GET": true, "HEAD": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true,
		"PATCH": true, "M-SEARCH": true, "QUERY": true,
		"CONNECT": false, "get": false, "FOO": false, "PRI": false, "": false,
	} {
		if got := ValidRequest(method, "/pixel.gif"); got != want {
			t.Errorf("method %q: valid is %v, want %v", method, got, want)
		}
	}
}

func TestValidTargets(t *testing.T) {
	for target, want := range map[string]bool{
		"/": true, "*": true, "//": true, "http://host/pixel.gif": true, "ftp://user:pw@[::1]:8": true, "http://": true,
		"http://a@b@c/": true,
		"":              false, "pixel.gif": false, "?key=a": false, "http:/host": false, "http:host": false,
		"h+x://host/": false, "http://a<b/": false, "http://host#a": false, "http://a@@c/": false,
	} {
		if got := ValidRequest("GET", target); got != want {
			t.Errorf("%q: valid is %v, want %v", target, got, want)
		}
	}
}

func TestSplitTarget(t *testing.T) {
	for _, test := range []struct{ target, path, query string }{
		{"/pixel.gif?key=a", "/pixel.gif", "key=a"},
		{"/pixel.gif", "/pixel.gif", ""},
		{"/pixel.gif?key=a?b", "/pixel.gif", "key=a?b"},
		{"/pixel.gif?key=a#&key=b", "/pixel.gif", "key=a"},
		{"/pixel.gif#?key=a", "/pixel.gif", ""},
		{"/pixel%2Egif?key=a", "/pixel%2Egif", "key=a"},
		{"//pixel.gif?key=a", "//pixel.gif", "key=a"},
		{"/./pixel.gif", "/./pixel.gif", ""},
		{"/a?http://h/pixel.gif", "/a", "http://h/pixel.gif"},
		{"http://host/pixel.gif?key=a", "/pixel.gif", "key=a"},
		{"HTTPS://user:pw@host:81/pixel.gif?key=a", "/pixel.gif", "key=a"},
		{"http:///pixel.gif?key=a", "/pixel.gif", "key=a"},
		{"http://host//pixel.gif", "//pixel.gif", ""},
		{"http://host?key=/pixel.gif", "/", "key=/pixel.gif"},
		{"http://host;/pixel.gif?key=a", "/;/pixel.gif", "key=a"},
		{"http://'/pixel.gif?key=a", "/'/pixel.gif", "key=a"},
		{"http://us;er@host/pixel.gif?key=a", "/pixel.gif", "key=a"},
		{"ftp://host/pixel.gif", "ftp://host/pixel.gif", ""},
		{"*", "*", ""},
	} {
		path, query := SplitTarget(test.target)
		if path != test.path || query != test.query {
			t.Errorf("%s: path %q and query %q, want %q and %q", test.target, path, query, test.path, test.query)
		}
	}
}
