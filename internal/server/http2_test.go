package server

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/hits"
	"pixel-ping/internal/pixel"
	"pixel-ping/internal/rig"
)

// testCertificate makes a certificate and returns the function that New takes.
func testCertificate(t *testing.T) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	t.Helper()
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &certificate, nil }
}

// startTLS serves the pixel over TLS and pipes until the test ends.
func startTLS(t *testing.T, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*Server, pipes) {
	t.Helper()
	p := newPipes()
	s := New(pixel.Handler{Hits: hits.NewStore(1 << 20)}, certificate, 0, io.Discard)
	go s.Serve(p)
	t.Cleanup(func() { s.Stop(t.Context()) })
	return s, p
}

// dialTLS does a TLS handshake in which the client offers a protocol.
func dialTLS(t *testing.T, p pipes, protocol string) *tls.Conn {
	t.Helper()
	conn := tls.Client(p.dial(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}})
	t.Cleanup(func() { conn.NetConn().Close() })
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		t.Fatalf("the protocol is %q, want %q", got, protocol)
	}
	return conn
}

// The types of frames that the tests use.
const (
	headersFrame      = 1
	settingsFrame     = 4
	windowUpdateFrame = 8
)

// writeFrame writes an HTTP/2 frame.
func writeFrame(t *testing.T, conn io.Writer, frame, flags byte, stream uint32, payload string) {
	t.Helper()
	head := []byte{0, 0, byte(len(payload)), frame, flags}
	head = binary.BigEndian.AppendUint32(head, stream)
	if _, err := conn.Write(append(head, payload...)); err != nil {
		t.Fatal(err)
	}
}

// readFrame reads frames until one has a type, and returns its payload. No frame may
// enlarge a window before that.
func readFrame(t *testing.T, conn io.Reader, frame byte) []byte {
	t.Helper()
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			t.Fatal(err)
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			t.Fatal(err)
		}
		switch head[3] {
		case frame:
			return payload
		case windowUpdateFrame:
			t.Errorf("a window is enlarged by %d bytes", binary.BigEndian.Uint32(payload))
		}
	}
}

// greet begins HTTP/2, and returns the payload of the server's SETTINGS frame.
func greet(t *testing.T, conn io.ReadWriter) []byte {
	t.Helper()
	io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	writeFrame(t, conn, settingsFrame, 0, 0, "")
	return readFrame(t, conn, settingsFrame)
}

// A connection is told the small limits of a server whose requests have no body, and
// its answers leave nothing in a table.
func TestHTTP2Settings(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		_, p := startTLS(t, certificate)
		conn := dialTLS(t, p, "h2")
		got := make(map[uint16]uint32)
		for settings := greet(t, conn); len(settings) >= 6; settings = settings[6:] {
			got[binary.BigEndian.Uint16(settings)] = binary.BigEndian.Uint32(settings[2:])
		}
		for name, test := range map[string]struct {
			id   uint16
			want uint32
		}{
			"MAX_CONCURRENT_STREAMS": {3, maxStreams},
			"INITIAL_WINDOW_SIZE":    {4, 64 << 10},
			"MAX_FRAME_SIZE":         {5, 16 << 10},
		} {
			if got[test.id] != test.want {
				t.Errorf("%s is %d, want %d", name, got[test.id], test.want)
			}
		}
		// The window of the connection is 65,535 bytes until a frame enlarges it.
		// GET https://x/pixel.gif, the end of the header and of the request.
		writeFrame(t, conn, headersFrame, 0x5, 1, "\x82\x87\x41\x01x\x04\x0a/pixel.gif")
		if got := readFrame(t, conn, headersFrame)[0]; got != 0x20|1 {
			t.Errorf("the header of the answer begins with %#x, want 0x21: a table of one byte", got)
		}
	})
}

// A client that is stuck in its handshake keeps no other from its own.
func TestHandshakesAtTheSameTime(t *testing.T) {
	certificate := testCertificate(t)
	synctest.Test(t, func(t *testing.T) {
		_, p := startTLS(t, certificate)
		stuck := p.dial()
		defer stuck.Close()
		began := time.Now()
		makeHit(t, dialTLS(t, p, "http/1.1"))
		if took := time.Since(began); took > 0 {
			t.Errorf("a handshake took %v beside one that is stuck", took)
		}
	})
}

// A stop does not wait for a TLS connection that has not sent a request yet: neither
// before the handshake, nor before the first byte of a request, nor after HTTP/2 was
// set up.
func TestStopWithTLSConnectionsWithoutARequest(t *testing.T) {
	certificate := testCertificate(t)
	for _, protocol := range []string{"http/1.1", "h2"} {
		synctest.Test(t, func(t *testing.T) {
			s, p := startTLS(t, certificate)
			conn := dialTLS(t, p, protocol)
			if protocol == "h2" {
				greet(t, conn)
			}
			go io.Copy(io.Discard, conn)
			silent := p.dial()
			defer silent.Close()
			<-time.After(time.Second)
			if took := stopWithin(t, s, 2*time.Second); took > 250*time.Millisecond {
				t.Errorf("%s: a stop took %v, want at most 250ms", protocol, took)
			}
		})
	}
}
