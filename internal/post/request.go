package post

import (
	"bufio"
	"fmt"
	"io"
	"strconv"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/node"
)

// writeRequest writes the POST with the headers that Node writes, in Node's order.
// It encodes the body twice, first to learn its length and then to write it to w,
// so that the body is never in memory as a whole.
//
// If id is not empty, the request has it as its Idempotency-Key, which the original
// does not send. An application that knows the id has saved the counts before.
func (c *Client) writeRequest(w io.Writer, id string, counts []hits.Count) error {
	length := c.BodySize(counts)
	request := bufio.NewWriterSize(w, 64<<10)
	fmt.Fprintf(request, "POST %s HTTP/1.1\r\nhost: %s\r\n", c.target, c.host)
	fmt.Fprintf(request, "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n", length)
	if id != "" {
		fmt.Fprintf(request, "Idempotency-Key: \"%s\"\r\n", id)
	}
	fmt.Fprintf(request, "%sConnection: keep-alive\r\n\r\n", c.authorization)
	return c.writeBody(request, counts)
}

// BodySize returns how many bytes the body for counts has.
func (c *Client) BodySize(counts []hits.Count) int64 {
	var size counter
	c.writeBody(bufio.NewWriter(&size), counts)
	return int64(size)
}

// writeBody writes the JSON object of keys and counts, and the secret if there is
// one, as a form (the original's serialize). Then it flushes w.
func (c *Client) writeBody(w *bufio.Writer, counts []hits.Count) error {
	w.WriteString("json=%7B")
	for i, count := range counts {
		b := w.AvailableBuffer()
		if i > 0 {
			b = append(b, "%2C"...)
		}
		b = node.AppendJSONForm(b, count.Key)
		b = append(b, "%3A"...)
		b = strconv.AppendInt(b, count.Hits, 10)
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	w.WriteString("%7D")
	if c.secret != "" {
		w.WriteString("&secret=")
		w.Write(node.AppendForm(nil, c.secret))
	}
	return w.Flush()
}

// A counter counts the bytes that are written to it.
type counter int64

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}
