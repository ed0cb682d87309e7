// Package node holds Node's rules where they differ from Go's: which requests
// its HTTP parser lets through, how url.parse and querystring.parse read a
// target, how JSON.stringify and querystring.stringify write one value, and
// what its strings and numbers are. The original leaves all of this to Node
// 20, so the port must do it the same way to count the same keys and to send
// the same bytes.
package node

import "strings"

// methods are those that Node's HTTP parser knows and hands to a server.
// CONNECT, which it knows too, is not one: Node closes such a connection.
var methods = make(map[string]bool)

func init() {
	for method := range strings.FieldsSeq(`ACL BIND CHECKOUT COPY DELETE GET HEAD
		LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS
		PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE
		SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE`) {
		methods[method] = true
	}
}

// ValidRequest reports whether Node's HTTP parser lets a request line with
// this method and target through. Node answers the others with 400: methods
// that it does not know (they are case-sensitive), targets with any byte
// outside 0x21 to 0x7E, raw UTF-8 among them, and those that are no path and
// no URL, all of which net/http would accept.
func ValidRequest(method, target string) bool {
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7F {
			return false
		}
	}
	return (method == "GET" || methods[method]) &&
		(strings.HasPrefix(target, "/") || strings.HasPrefix(target, "*") || validURL(target))
}

// validURL reports whether a target is of the form scheme://authority and so
// on, as Node's HTTP parser sees it.
func validURL(target string) bool {
	scheme, rest, absolute := strings.Cut(target, "://")
	authority := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority = rest[:i]
	}
	return absolute && strings.Trim(scheme, letters) == "" &&
		strings.Trim(authority, letters+"0123456789-_.!~*'()%;:&=+$,@[]") == "" &&
		!strings.Contains(authority, "@@")
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// SplitTarget returns the path and the query of a request target, both still
// escaped, as url.parse finds them: the fragment goes first, then the query is
// cut off. Of the absolute form that proxies are sent, http://host/path, the
// path starts behind the host, which a character ends that no host has.
func SplitTarget(target string) (path, query string) {
	target, _, _ = strings.Cut(target, "#")
	target, query, _ = strings.Cut(target, "?")
	scheme, rest, absolute := strings.Cut(target, "://")
	if absolute && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) {
		authority, path, _ := strings.Cut(rest, "/")
		host := authority[strings.LastIndex(authority, "@")+1:]
		if i := strings.IndexAny(host, ";'%"); i >= 0 {
			return "/" + host[i:] + "/" + path, query
		}
		return "/" + path, query
	}
	return target, query
}
