//go:build unix

package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

const (
	maxWait = 30  // ms, which a hit may wait during a flush
	maxPeak = 260 // MB, which the process may take, without the pages of the journal
)

// flushColumns are the figures that measureFlush returns.
var flushColumns = []string{"longest wait of a hit, ms", "the same at an idle daemon, ms", "CPU, s", "wall, s",
	"memory before, MB", "peak memory, MB", "peak without the journal's pages, MB"}

// TestFlush measures a flush of many keys, and how long hits wait during it, for the
// daemon and the original. So that other work on the machine does not count, both run with a
// higher priority, which needs root. What still makes the clients wait is taken off: it is how
// long they wait meanwhile at another daemon that has nothing else to do. A busy machine takes more rounds.
func TestFlush(t *testing.T) {
	ours := []string{"this", withJournal, withoutEndpoint, withJournalOnly}
	for _, keys := range []int{200_000, 1_000_000} {
		t.Run(fmt.Sprint(keys), func(t *testing.T) {
			table := newTable(fmt.Sprintf("flush of %d keys", keys), flushColumns...)
			wait := func(name string) float64 { // the median of the rounds
				var more []float64
				for round, longest := range table.rows[name][0] {
					more = append(more, longest-table.rows[name][1][round])
				}
				slices.Sort(more)
				return more[len(more)/2]
			}
			peak := func(name string) float64 { return table.median(name, 6) }
			over := func(name string) bool { return wait(name) > maxWait || peak(name) > maxPeak }
			few, many := rounds(t), 3*rounds(t)
			for i := 0; i < few || i < many && slices.ContainsFunc(ours, over); i++ {
				for _, name := range append(ours, "original") {
					if i < few || name != "original" {
						table.add(name, measureFlush(t, name, keys)...)
					}
				}
			}
			table.print()
			for _, name := range ours {
				if over(name) {
					t.Errorf("%s: a hit waits up to %.1f ms more than at an idle daemon, and the process takes "+
						"%.0f MB; want at most %d ms and %d MB", name, wait(name), peak(name), maxWait, maxPeak)
				}
			}
		})
	}
}

// measureFlush returns the figures of one flush, in the order of flushColumns.
func measureFlush(t *testing.T, name string, keys int) []float64 {
	t.Helper()
	received := make(chan error, 1)
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		w.WriteHeader(204)
		received <- err
	}))
	defer application.Close()
	port := rig.FreePort(t)
	settings := map[string]any{"host": "127.0.0.1", "port": port, "interval": 86400}
	end := "--- flushed ---\n"
	if name == withoutEndpoint || name == withJournalOnly {
		end = ":\tprobe\n" // the last key
	} else {
		settings["endpoint"] = application.URL
	}
	if name == withJournal || name == withJournalOnly {
		settings["journal"] = filepath.Join(t.TempDir(), "journal")
	}
	config := rig.WriteConfig(t, settings)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("nice", "-n", "-19", rig.Binary, config) // nice goes on if it is not permitted to do that.
	if name == "original" {
		cmd = exec.Command("nice", "-n", "-19", "node", filepath.Join(original, "bin", "pixel-ping"), config)
	}
	cmd.Stdout = log
	s := &server{Process: rig.StartCommand(t, cmd), url: "http://127.0.0.1:" + port, prefix: "/pixel.gif?key="}
	defer s.end(t)
	s.WaitListening(t, "127.0.0.1:"+port)
	s.record(t, keys)
	idle, _ := start(t, "this", "", 1000)
	defer idle.end(t)
	<-time.After(time.Second) // the garbage collector finishes

	var journal int64
	files, _ := filepath.Glob(filepath.Join(fmt.Sprint(settings["journal"]), "*"))
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		journal += info.Size()
	}
	before := s.Memory(t).Now
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Fatalf("the peak of the memory is not reset: %v", err)
	}
	flushed := make(chan struct{})
	waits, idleWaits := make(chan time.Duration), make(chan time.Duration)
	const clients = 4
	for range clients {
		go func() { waits <- s.longestWait(t, flushed) }()
		go func() { idleWaits <- idle.longestWait(t, flushed) }()
	}
	<-time.After(100 * time.Millisecond) // the clients have begun
	cpu, _ := s.CPU(t)
	began := time.Now()
	s.Signal(t, syscall.SIGUSR2)
	if settings["endpoint"] != nil {
		if err := <-received; err != nil {
			t.Error(err)
		}
	}
	waitEnd(t, log, end)
	wall := time.Since(began)
	cpuAfter, _ := s.CPU(t)
	close(flushed)
	var longest, idleLongest time.Duration
	for range clients {
		longest, idleLongest = max(longest, <-waits), max(idleLongest, <-idleWaits)
	}
	peak := s.Memory(t).Peak
	return []float64{
		longest.Seconds() * 1e3, idleLongest.Seconds() * 1e3, (cpuAfter - cpu).Seconds(), wall.Seconds(),
		float64(before) / 1e6, float64(peak) / 1e6, float64(peak-journal) / 1e6,
	}
}

// record makes one hit for each key. The keys are the URLs of articles.
func (s *server) record(t *testing.T, keys int) {
	t.Helper()
	const clients, batch = 4, 100
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			conn, err := s.dial()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(5 * time.Minute))
			buffer := make([]byte, 64<<10)
			for first := client * batch; first < keys; first += clients * batch {
				var requests strings.Builder
				for i := first; i < first+batch; i++ {
					key := fmt.Sprintf("https://www.example.com/2026/11/22/an-article-of-some-length-%d.html", i)
					fmt.Fprintf(&requests, "GET %s%s HTTP/1.1\r\nHost: x\r\n\r\n", s.prefix, url.QueryEscape(key))
				}
				io.WriteString(conn, requests.String())
				for answers := 0; answers < batch; {
					n, err := conn.Read(buffer)
					if err != nil {
						t.Errorf("after %d keys: %v", first, err)
						return
					}
					answers += bytes.Count(buffer[:n], []byte(";")) // only the last byte of the GIF is a ;
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// longestWait makes a hit each millisecond until flushed is closed, and returns how
// long the slowest hit took. If the server closes the connection, longestWait opens
// another one.
func (s *server) longestWait(t *testing.T, flushed <-chan struct{}) (longest time.Duration) {
	var conn net.Conn
	for {
		began := time.Now()
		var err error
		if conn == nil {
			conn, err = s.dial()
		}
		if err == nil {
			err = s.hit(conn, "probe")
		}
		longest = max(longest, time.Since(began))
		if err != nil && conn != nil {
			conn.Close()
			conn = nil
		}
		select {
		case <-flushed:
			return longest
		case <-time.After(time.Millisecond):
		}
	}
}

// waitEnd waits until a file ends with text.
func waitEnd(t *testing.T, file *os.File, text string) {
	t.Helper()
	end := make([]byte, len(text))
	for limit := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		if info, err := file.Stat(); err == nil && info.Size() > int64(len(text)) {
			file.ReadAt(end, info.Size()-int64(len(text)))
		}
		if string(end) == text {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the log ends with %q, want %q", end, text)
		}
	}
}
