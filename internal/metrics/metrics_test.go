package metrics

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pixel-ping/internal/rig"
	"pixel-ping/internal/stats"
)

var counted100 = stats.All{
	Hits: stats.Hits{
		Recorded: 101, Refused: 102, Pending: 103, Keys: 104, Aside: 113, Dropped: 114, DeliveredHits: 107,
	},
	Flushes: stats.Flushes{
		Delivered: 105, Failed: 106, InDoubt: 108,
		LastDelivery: time.UnixMilli(1769850720123),
	},
	Connections: stats.Connections{Open: 109, Idle: 110, Crowded: 111, Slow: 112, FailedHandshakes: 115},
}

func handler(all stats.All) Handler {
	return Handler{
		Version:  `1"\2`,
		Stats:    func() stats.All { return all },
		NotAfter: func() time.Time { return time.Unix(1777334400, 0) },
	}
}

// samples returns the samples of a page, and fails the test if a family lacks its help
// or its type.
func samples(t *testing.T, page string) map[string]string {
	t.Helper()
	all, kinds := make(map[string]string), make(map[string]string)
	help := ""
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if words := strings.Fields(line); words[0] == "#" {
			if words[1] == "HELP" {
				help = words[2]
			} else if words[1] != "TYPE" || words[2] != help {
				t.Errorf("%s after the help of %s", line, help)
			} else {
				kinds[help] = words[3]
			}
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		name, _, _ := strings.Cut(line[:at], "{")
		want := map[bool]string{true: "counter", false: "gauge"}[strings.HasSuffix(name, "_total")]
		if kinds[name] != want || name != help {
			t.Errorf("%s has the type %q, want %q", name, kinds[name], want)
		}
		all[line[:at]] = line[at+1:]
	}
	return all
}

func TestPage(t *testing.T) {
	answer := httptest.NewRecorder()
	handler(counted100).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	const format = "text/plain; version=0.0.4; charset=utf-8"
	if got := answer.Header().Get("Content-Type"); answer.Code != 200 || got != format {
		t.Errorf("status %d, type %q", answer.Code, got)
	}
	got := samples(t, answer.Body.String())
	for name, want := range map[string]string{
		"pixel_ping_hits_total":                                 "101",
		"pixel_ping_hits_refused_total":                         "102",
		"pixel_ping_pending_hits":                               "103",
		"pixel_ping_pending_keys":                               "104",
		`pixel_ping_flushes_total{result="delivered"}`:          "105",
		`pixel_ping_flushes_total{result="failed"}`:             "106",
		"pixel_ping_delivered_hits_total":                       "107",
		"pixel_ping_refused_by_application_hits":                "113",
		"pixel_ping_refused_by_application_hits_total":          "114",
		"pixel_ping_handshakes_failed_total":                    "115",
		"pixel_ping_in_doubt_hits":                              "108",
		"pixel_ping_last_delivery_timestamp_seconds":            "1769850720.123",
		"pixel_ping_certificate_not_after_timestamp_seconds":    "1777334400",
		"pixel_ping_connections":                                "109",
		`pixel_ping_connections_closed_total{reason="idle"}`:    "110",
		`pixel_ping_connections_closed_total{reason="crowded"}`: "111",
		`pixel_ping_connections_closed_total{reason="slow"}`:    "112",
		`pixel_ping_build_info{version="1\"\\2",revision="` + revision() + `",goversion="` + runtime.Version() + `"}`: "1",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %s", name, got[name], want)
		}
		delete(got, name)
	}
	names := slices.Sorted(maps.Keys(got))
	want := []string{"process_start_time_seconds"}
	if runtime.GOOS == "linux" {
		want = []string{"process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"}
		var resident, descriptors int64
		fmt.Sscan(got["process_resident_memory_bytes"], &resident)
		fmt.Sscan(got["process_open_fds"], &descriptors)
		if resident < 1<<20 || resident > 1<<32 || descriptors < 3 || descriptors > 1000 {
			t.Errorf("%d bytes and %d descriptors", resident, descriptors)
		}
	}
	if !slices.Equal(names, want) {
		t.Errorf("there is %q, too, want %q", names, want)
	}
	var start float64
	fmt.Sscan(got["process_start_time_seconds"], &start)
	if ago := time.Since(time.UnixMilli(int64(start * 1000))); ago < 0 || ago > time.Hour {
		t.Errorf("the process was started %v ago", ago)
	}
}

// Before the first delivery there is no time of it.
func TestNoDeliveryYet(t *testing.T) {
	answer := httptest.NewRecorder()
	handler(stats.All{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if got := samples(t, answer.Body.String())["pixel_ping_last_delivery_timestamp_seconds"]; got != "0" {
		t.Errorf("the last delivery was at %s, want 0", got)
	}
}

// Without a certificate there is no time of its end.
func TestNoCertificate(t *testing.T) {
	h := handler(stats.All{})
	h.NotAfter = func() time.Time { return time.Time{} }
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if page := answer.Body.String(); strings.Contains(page, "certificate") || !strings.Contains(page, "hits_total") {
		t.Errorf("got:\n%s", page)
	}
}

func TestNothingElseAnswers(t *testing.T) {
	for _, request := range []string{"GET /", "GET /metrics/", "GET /pixel.gif?key=a", "POST /metrics", "HEAD /"} {
		method, target, _ := strings.Cut(request, " ")
		answer := httptest.NewRecorder()
		handler(stats.All{}).ServeHTTP(answer, httptest.NewRequest(method, target, nil))
		if answer.Code != 404 || answer.Body.Len() > 0 {
			t.Errorf("%s: status %d, %d bytes", request, answer.Code, answer.Body.Len())
		}
	}
}

// start answers on address until the test ends.
func start(t *testing.T, address string) *Server {
	t.Helper()
	s, err := Start(t.Context(), address, handler(counted100))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestStart(t *testing.T) {
	s := start(t, "127.0.0.1:0")
	answer, err := http.Get(s.url)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if !strings.Contains(string(page), "\npixel_ping_hits_total 101\n") || err != nil {
		t.Errorf("got %s, error %v", page, err)
	}
	address := strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), Path)
	_, err = Start(t.Context(), address, handler(counted100))
	if want := "metrics: cannot listen on " + address + ": address already in use"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	s.Close()
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("it listens after Close")
	}
	(*Server)(nil).Close()
}

// HEAD is answered as GET is, without the page.
func TestHead(t *testing.T) {
	answer, err := http.Head(start(t, "127.0.0.1:0").url)
	if err != nil {
		t.Fatal(err)
	}
	page, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	kind := answer.Header.Get("Content-Type")
	if answer.StatusCode != 200 || !strings.HasPrefix(kind, "text/plain; version=0.0.4") || len(page) > 0 || err != nil {
		t.Errorf("status %d, type %q, %d bytes, error %v", answer.StatusCode, kind, len(page), err)
	}
}

// pipes is a listener for the other ends of pipes.
type pipes struct {
	net.Listener
	conns chan net.Conn
}

func (p pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	close(p.conns)
	return nil
}

// A scrape is answered at once beside clients that send nothing. Of those, only the
// last ones stay connected, as long as a request may take.
func TestSilentClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const silent = 20
		s, p := newServer(handler(counted100)), pipes{conns: make(chan net.Conn)}
		go s.serve(p)
		defer s.Close()
		began, ended := time.Now(), make([]time.Duration, silent)
		for i := range silent {
			conn := p.dial()
			go func() {
				io.Copy(io.Discard, conn)
				ended[i] = time.Since(began)
			}()
			synctest.Wait()
		}
		conn := p.dial()
		go io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := rig.ReadAnswer(bufio.NewReader(conn)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the answer came after %v", took)
		}
		<-time.After(requestTime)
		synctest.Wait()
		var want []time.Duration
		for i := range silent {
			if i < silent-maxScrapes+1 {
				want = append(want, 0)
			} else {
				want = append(want, requestTime)
			}
		}
		if !slices.Equal(ended, want) {
			t.Errorf("the silent connections ended after %v, want %v", ended, want)
		}
	})
}
