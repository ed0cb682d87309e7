package node

import "strings"

// methods are those that Node's HTTP parser knows, without CONNECT: Node closes
// the connection of a CONNECT request.
var methods = make(map[string]bool)

func init() {
	for method := range strings.FieldsSeq(`ACL BIND CHECKOUT COPY DELETE GET HEAD
		LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS
		PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE
		SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE`) {
		methods[method] = true
	}
}

// ValidRequest reports whether Node's HTTP parser accepts a request line with this
// method and target. Node answers the others with 400: methods that it does not
// know (they are case-sensitive), targets with a byte outside 0x21 to 0x7E (raw
// UTF-8, for example), and targets that are neither a path nor a URL. net/http
// accepts all of these.
func ValidRequest(method, target string) bool {
	for i := range len(target) {
		if target[i] <= ' ' || target[i] >= 0x7F {
			return false
		}
	}
	return (method == "GET" || methods[method]) &&
		(strings.HasPrefix(target, "/") || strings.HasPrefix(target, "*") || validURL(target))
}

// validURL reports whether Node's HTTP parser accepts a target as a URL, which
// begins with scheme://authority.
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
// escaped, as url.parse does: it cuts off the fragment, then the query. In the
// absolute form, http://host/path, which clients send to proxies, the path begins
// after the host. The first character that no host can have ends the host.
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
