package metrics

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
	"pixel-ping/internal/stats"
)

var counted100 = stats.All{
	Hits: stats.Hits{Recorded: 101, Refused: 102, Pending: 103, Keys: 104, Aside: 113, Dropped: 114},
	Flushes: stats.Flushes{
		Delivered: 105, Failed: 106, DeliveredHits: 107, InDoubt: 108,
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

// A scrape is answered at once beside clients that send nothing. Of those, only the
// last ones stay connected.
func TestSilentClients(t *testing.T) {
	const silent = 20
	address := strings.TrimSuffix(strings.TrimPrefix(start(t, "127.0.0.1:0").url, "http://"), Path)
	var conns []net.Conn
	for range silent {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	conn.SetDeadline(began.Add(rig.Deadline))
	io.WriteString(conn, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	if _, err := rig.ReadAnswer(bufio.NewReader(conn)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > requestTime/2 {
		t.Errorf("the answer came after %v", took)
	}
	for i, conn := range conns[:silent-maxScrapes] {
		conn.SetReadDeadline(began.Add(requestTime / 2))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the silent connection %d is still open (error %v)", i, err)
		}
	}
}
