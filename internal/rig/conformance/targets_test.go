//go:build unix

package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// curated holds targets for each rule by which the original counts. The targets of
// a group with a difference show that difference; the others are treated alike.
var curated = []struct {
	rule, difference string
	targets          []string
}{
	{"every printable byte is accepted", "", printable()},
	{"any other byte is not", "", unprintable()},
	{"the fragment is cut first", "", []string{
		"/pixel.gif?key=a#b", "/pixel.gif?key=a#&key=b", "/pixel.gif#?key=a", "/pixel.gif#", "/#/pixel.gif?key=a",
		"/pixel.gif?key=a#%zz", "/pixel.gif?key=a%23b#c#d", "/pixel.gif?#key=a", "/pixel.gif?key=a#@", "/pixel.gif?key=@#a",
	}},
	{"the query is cut at the first question mark", "", []string{
		"/pixel.gif?key=a?b", "/pixel.gif??key=a", "/pixel.gif?", "/?/pixel.gif?key=a", "/pixel.gif?key=?",
		"/pixel.gif?x=http://h/&key=a", "/pixel.gif?key=http://h/a", "/pixel.gif?key=//u@h/",
	}},
	{"the path is compared byte by byte", "", []string{
		"/pixel.gif?key=a", "/pixel.gif", "//pixel.gif?key=a", "/./pixel.gif?key=a", "/x/../pixel.gif?key=a",
		"/pixel%2Egif?key=a", "/%70ixel.gif?key=a", "/pixel.gif/?key=a", "/PIXEL.GIF?key=a", "/pixel.gif;x?key=a",
		"/pixel.gif%20?key=a", "/pixel.gi?key=a", "/pixel.giff?key=a", "/?key=a", "/favicon.ico", "/pixel.gif\\?key=a",
		"/\\pixel.gif?key=a", "/pixel.gif&key=a", "/pixel,gif?key=a", "*", "/*", "/pixel.gif%00?key=a", "/pixel.gif.?key=a",
	}},
	{"the absolute form", "", []string{
		"http://host/pixel.gif?key=a", "https://host/pixel.gif?key=a", "HTTP://HOST/pixel.gif?key=a",
		"http://host:81/pixel.gif?key=a", "http://user:pw@host/pixel.gif?key=a", "http://host?key=/pixel.gif",
		"http://host", "http://host/", "http://host//pixel.gif?key=a", "http://host/pixel.gif/?key=a",
		"http:///pixel.gif?key=a", "http://[::1]/pixel.gif?key=a", "http://host/x?http://host/pixel.gif",
		"http://host#/pixel.gif?key=a", "http://host/pixel.gif#?key=a", "http://host:/pixel.gif?key=a",
		"http://user%40x@host/pixel.gif?key=a", "http://u@v@host/pixel.gif?key=a", "http://h@'@",
		"http://u@@host/pixel.gif?key=a", "http://host/pixel.gif?key=a@b", "http://host/?x=/pixel.gif&key=a",
		"http://host;/pixel.gif?key=a", "http://'/pixel.gif?key=a", "https://;h/pixel.gif?key=a",
		"http://u;s'er@host/pixel.gif?key=a", "http://h%C3%A9/pixel.gif?key=a",
	}},
	{"no other form", "", []string{
		"pixel.gif?key=a", "?key=a", "host/pixel.gif?key=a", "http:/pixel.gif?key=a", "http:pixel.gif?key=a",
	}},
	{"pieces are split at & alone", "", queries(
		"key=a&b", "a&key=b", "key=a;key=b", "key=a;b=c&d", "x;key=a", "a=b;key=c&key=d", "&key=a", "key=a&", "&&key=a&&",
		"&", "&&", "key=a&&key=b",
	)},
	{"a piece is split at its first =", "", queries(
		"key=a=b", "key==", "key==a", "=key", "=&key=a", "=a&key=b", "key", "key=", "key&x", "a=key=b", "key=%3D",
	)},
	{"repeated keys are joined", "", queries(
		"key=a&key=b", "key=&key=", "key&key", "key&key=a", "key=a&key", "key=a&key=&key=b", "key=a&x=y&key=a",
		"key=a%2Cb&key=c", "key=,",
	)},
	{"names are decoded and compared whole", "", queries(
		"%6Bey=a", "k%65y=a", "%6b%65%79=a", "KEY=a", "key[]=a", "+key=a", "key+=a", "%20key=a", "keys=a", "ke=a",
		"key%00=a", "%256Bey=a", "%6Bey=a&key=b", "key%3Da", "key%26=a", "%ke%79=a", "k%2565y=a",
	)},
	{"escapes are lenient", "", queries(
		"key=a+b", "key=a%20b", "key=a%2Bb", "key=+", "key=%20", "key=+a+", "key=%zz", "key=%41%zz", "key=100%", "key=%",
		"key=%4", "key=%4+1", "key=%+41", "key=%%41", "key=%%", "key=%4%41", "key=%u00e9", "key=%a", "key=%g1", "key=%1g",
		"key=%C3%A9%", "key=%c3%zz%a9", "key=%25%34%31", "key=%2541", "key=%e9%", "key=%%e9", "key=%E9%4g", "key=%0A",
		"key=%0D%0A", "key=%00", "key=%7F", "key=%22%5C", "key=%c3%28", "key=%3Cscript%3E", "key=%09a",
	)},
	{"invalid UTF-8 is replaced, once for each maximal subpart", "", queries(
		"key=%C3%A9", "key=%e4%bd%a0", "key=%F0%9F%98%80", "key=%e4%bd", "key=%e4", "key=%ED%A0%80", "key=%C0%AF",
		"key=%F0%9F%98", "key=%F0%9F", "key=%F0", "key=%80", "key=a%80b", "key=%80%80%80", "key=%FE%FF", "key=%F5%80%80%80",
		"key=%F4%90%80%80", "key=%F4%8F%BF%BF", "key=%F0%8F%80%80", "key=%F0%90%80%80", "key=%E0%80%80", "key=%E0%9F%BF",
		"key=%E0%A0%80", "key=%E0%A0", "key=%ED%9F%BF", "key=%ED%A0%BD%ED%B8%80", "key=%EE%80%80", "key=%C2", "key=%C2A",
		"key=%C1%81", "key=%e4%bdA", "key=%e4%bd%e4%bd%a0", "key=%F0%9F%98A", "key=%F0%9F%98%C3%A9", "key=%EF%BB%BFa",
		"key=a%EF%BB%BF", "key=%EF%BF%BD", "key=%EF%BF%BF", "key=%F8%88%80%80%80", "%FFkey=a", "key=%e4%bd+", "key=%e4+%bd",
		"key=%e4%bd%zz", "key=%C3&key=%A9", "key=%F1%80%80%41", "key=%F3%80%F3%80%80",
	)},
	{"the first thousand pieces are looked at", "", queries(
		strings.Repeat("a&", 998)+"key=b", strings.Repeat("a&", 999)+"key=b", strings.Repeat("a&", 1000)+"key=b",
		strings.Repeat("a&", 1001)+"key=b", strings.Repeat("&", 998)+"key=b", strings.Repeat("&", 999)+"key=b",
		strings.Repeat("&", 1000)+"key=b", strings.Repeat("&", 1001)+"key=b", strings.Repeat("key=x&", 1001),
		"key=a"+strings.Repeat("&", 999)+"key=b", "key=a"+strings.Repeat("&", 1000)+"key=b",
		strings.Repeat("=&", 999)+"key=b", strings.Repeat("=&", 1000)+"key=b", strings.Repeat("a=&b&", 499)+"c&key=b&key=c",
	)},
	{"long keys", "", queries(
		"key="+strings.Repeat("x", 4096), "key="+strings.Repeat("%C3%A9", 1000), "key="+strings.Repeat("x", 15000),
	)},
	{"too long keys", "", queries("key=" + strings.Repeat("x", 22000))},
	{"keys that sort otherwise", "", queries("key=10", "key=9", "key=010", "key=-1", "key=1e3", "key=4294967295")},

	{"", "JavaScript's own keys", queries(
		"key=__proto__", "key=constructor", "key=toString", "key=hasOwnProperty", "key=valueOf",
	)},
	{"", "header size", queries("key=" + strings.Repeat("x", 16500))},
	{"", "targets that net/http refuses", []string{
		"/pixel.gif%?key=a", "/%zz?key=a", "/pixel.gif#%zz", "/pixel%2.gif?key=a", "*x?key=a",
		"http://ho%st/pixel.gif?key=a", "http://h:8a/pixel.gif?key=a", "http://ho%41st/pixel.gif?key=a",
	}},
	{"", "targets that Node trips over", []string{
		"//u%zz@h/pixel.gif?key=a", "http://[/pixel.gif?key=a", "http://u%zz@h/pixel.gif?key=a",
		"http://u%FF@h/pixel.gif?key=a", "http://h]/pixel.gif?key=a",
	}},
	{"", "user and host in the path", []string{"//user@host/pixel.gif?key=a"}},
	{"", "other schemes", []string{"ftp://host/pixel.gif?key=a"}},
}

func queries(all ...string) []string {
	for i := range all {
		all[i] = "/pixel.gif?" + all[i]
	}
	return all
}

func printable() (all []string) {
	for c := 0x21; c < 0x7F; c++ {
		all = append(all, fmt.Sprintf("/pixel.gif?key=<%c>", c), fmt.Sprintf("/pixel.gif?k%cy=a&key=b", c))
		if c != '%' {
			all = append(all, fmt.Sprintf("/pixel.gif%c?key=a", c))
		}
	}
	return all
}

func unprintable() (all []string) {
	for c := range 256 {
		// A line break would end the request line.
		if (c <= 0x20 || c >= 0x7F) && c != '\r' && c != '\n' {
			all = append(all, "/pixel.gif?key=a"+string([]byte{byte(c)})+"b")
		}
	}
	return append(all, "/pixel.gif?key=ü", "/pïxel.gif?key=a")
}

// tokens are the parts of random targets: everything that a rule is about.
var tokens = []string{
	"key=", "key", "=", "&", "&&", "&key=", ";", "+", "#", "?", "/", "@", ":", "%", "%%", "%2", "%zz", "%u0041", "%41",
	"%6B", "%6bey=", "KEY=", "%20", "%2B", "%26", "%3D", "%23", "%00", "%0A", "%25", "%C3%A9", "%C3", "%A9", "%e4%bd%a0",
	"%e4%bd", "%E4", "%F0%9F%98%80", "%F0%9F%98", "%ED%A0%80", "%C0%AF", "%F4%90", "%80", "%FF", "%EF%BB%BF",
	"%EF%BF%BD", "a", "b", "Z", "0", "10", "~", "!", "*", "'", "(", ")", "\"", "<", ">", "\\", "^", "`", "{", "|", "}",
	"[", "]", ",", ".", "-", "_", "$", "__proto__", "constructor", "http://h/", "//", "key[]=", "toX", "key=a&key=b",
	"&&&&&&&&",
}

var paths = []string{
	"/pixel.gif?", "/pixel.gif?", "/pixel.gif?", "/pixel.gif?", "/pixel.gif?key=", "/pixel.gif?key=", "/pixel.gif?key=",
	"/pixel.gif?key=", "/pixel.gif?key=", "/pixel.gif?key=", "/pixel.gif", "/pixel.gif#", "/pixel.gif/",
	"//pixel.gif?key=", "/pixel.gi", "/pixel%2Egif?key=", "/PIXEL.gif?", "/", "/pixel.gif;?key=", "/./pixel.gif?key=",
	"http://host/pixel.gif?key=", "https://host:81/pixel.gif?", "http://user:pw@host/pixel.gif?key=", "HTTP://h/",
	"http://h/pixel.gif", "http://h", "http://h;x/pixel.gif?key=", "http://u;v@h'/pixel.gif?key=",
	"https://h,!*()$&=+~_-.:8/pixel.gif?key=", "http://",
}

// randomTarget returns a path followed by tokens. One target in fifty has about a
// thousand pieces, and one in fifty has a long key.
func randomTarget(random *rand.Rand) string {
	var b strings.Builder
	b.WriteString(paths[random.IntN(len(paths))])
	switch random.IntN(50) {
	case 0:
		b.WriteString(strings.Repeat([]string{"&", "a&", "=&", "key&"}[random.IntN(4)], 994+random.IntN(6)))
	case 1:
		b.WriteString(strings.Repeat("x%C3", random.IntN(3000)))
	}
	for range random.IntN(12) {
		b.WriteString(tokens[random.IntN(len(tokens))])
	}
	return b.String()
}
