//go:build unix

package soak

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"iter"
	"maps"
	"net"
	"slices"
	"time"

	"pixel-ping/internal/rig"
)

// The parts of HTTP/2 (RFC 9113) that a hostile client needs. net/http's client
// sends nothing that a server would have to defend against.

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Types and flags of frames.
const (
	frameData     = 0
	frameHeaders  = 1
	frameSettings = 4
	frameGoAway   = 7

	flagAck        = 1 // of SETTINGS
	flagEndStream  = 1 // of DATA and HEADERS
	flagEndHeaders = 4
)

// settingWindow is the setting of how much a stream may be sent before it is read.
const settingWindow = 4

// appendFrame appends a frame.
func appendFrame(to []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	to = append(to, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	to = binary.BigEndian.AppendUint32(to, stream)
	return append(to, payload...)
}

// frameKinds returns the types of the whole frames in bytes.
func frameKinds(bytes []byte) iter.Seq[byte] {
	return func(yield func(byte) bool) {
		const head = 9
		for len(bytes) >= head && yield(bytes[3]) {
			length := int(bytes[0])<<16 | int(bytes[1])<<8 | int(bytes[2])
			bytes = bytes[min(head+length, len(bytes)):]
		}
	}
}

// appendWindow appends a SETTINGS frame with the initial window of streams.
func appendWindow(to []byte, window uint32) []byte {
	return appendFrame(to, frameSettings, 0, 0,
		binary.BigEndian.AppendUint32([]byte{0, settingWindow}, window))
}

// Header fields as HPACK (RFC 7541) encodes them. Numbers are those of its static
// table.
const (
	indexed          = 0x80 // or'ed with the number of a field: name and value
	fieldAuthority   = 1    // a name, whose value follows
	fieldMethodGet   = indexed | 2
	fieldPath        = 4 // a name, whose value follows
	fieldSchemeHTTPS = indexed | 7
)

// shortFields are the fields of the static table with the shortest names and empty
// values. A server counts the length of the name and 32 bytes for each.
var shortFields = []byte{
	indexed | 21, indexed | 60, indexed | 33, indexed | 34, indexed | 37, indexed | 45, indexed | 59, indexed | 22,
}

// appendRequest appends the header block of a GET request, with more short fields.
func appendRequest(to []byte, path string, more int) []byte {
	to = append(to, fieldMethodGet, fieldSchemeHTTPS)
	to = append(to, fieldAuthority, 1, 'x')
	to = append(to, fieldPath)
	if n := len(path); n < 127 { // a length is a number with a prefix of 7 bits
		to = append(to, byte(n))
	} else {
		to = binary.AppendUvarint(append(to, 127), uint64(n-127))
	}
	to = append(to, path...)
	for i := range more {
		to = append(to, shortFields[i%len(shortFields)])
	}
	return to
}

// dialTLS connects to a daemon and shakes hands for a protocol.
func dialTLS(address, protocol string) (net.Conn, error) {
	conn, err := rig.Dial(address)
	if err != nil {
		return nil, err
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	client.SetDeadline(time.Now().Add(rig.Deadline))
	if err := client.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return client, nil
}

// dialHTTP2 connects to a daemon and sends the client's preface and frames. It reads
// nothing after the handshake.
func dialHTTP2(address string, frames []byte) (net.Conn, error) {
	conn, err := dialTLS(address, "h2")
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(append([]byte(preface), frames...)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// client2 is a connection with HTTP/2. Unlike net/http's client, it reads all that the
// server has sent before it takes a hit for unanswered: net/http's gives up when it
// cannot write.
type client2 struct {
	conn   net.Conn
	stream uint32 // of the last request
}

// newClient2 connects to a daemon.
func newClient2(address string) (*client2, error) {
	conn, err := dialHTTP2(address, appendFrame(nil, frameSettings, 0, 0, nil))
	if err != nil {
		return nil, err
	}
	return &client2{conn: conn, stream: 1}, nil
}

// hit makes a hit for each key at once. It returns the keys of those that were not
// answered, if the connection ends.
func (c *client2) hit(keys ...string) (unanswered []string) {
	c.conn.SetDeadline(time.Now().Add(rig.Deadline))
	waiting := make(map[uint32]string)
	var frames []byte
	for _, key := range keys {
		c.stream += 2
		waiting[c.stream] = key
		request := appendRequest(nil, rig.Target(key), 0)
		frames = appendFrame(frames, frameHeaders, flagEndHeaders|flagEndStream, c.stream, request)
	}
	c.conn.Write(frames)
	for len(waiting) > 0 {
		var head [9]byte
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			break
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(c.conn, payload); err != nil {
			break
		}
		switch kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:]); {
		case kind == frameSettings && flags&flagAck == 0:
			c.conn.Write(appendFrame(nil, frameSettings, flagAck, 0, nil))
		case kind == frameData && flags&flagEndStream != 0 && bytes.HasPrefix(payload, []byte("GIF89a")):
			delete(waiting, stream)
		}
	}
	return slices.Collect(maps.Values(waiting))
}
