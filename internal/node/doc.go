// Package node implements rules of Node 20 that differ from Go's: which requests
// its HTTP parser accepts, how url.parse and querystring.parse read a target, how
// JSON.stringify and querystring.stringify write a value, and how strings are
// converted to numbers and back. The original leaves all of this to Node, so the
// port needs the same rules to count the same keys and to send the same bytes.
package node
