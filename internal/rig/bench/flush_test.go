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

// TestFlush measures a flush of many keys, and how long hits wait during it, for the
// daemon and the original. What else the machine does makes hits wait, too, and so does the
// load of the test. That is allowed for: it is how long hits of another daemon wait
// meanwhile, which has nothing else to do.
func TestFlush(t *testing.T) {
	for _, keys := range []int{200_000, 1_000_000} {
		table := newTable(fmt.Sprintf("flush of %d keys", keys), "longest wait of a hit, ms",
			"longest wait at an idle daemon, ms", "CPU, s", "wall, s", "memory before, MB", "peak memory, MB", "journal, MB")
		ours := []string{"this", withJournal, withoutEndpoint, withJournalOnly}
		for range rounds(t) {
			for _, name := range append(ours, "original") {
				table.add(name, measureFlush(t, name, keys)...)
			}
		}
		table.print()
		for _, name := range ours {
			if wait, idle := table.median(name, 0), table.median(name, 1); wait > maxWait+idle {
				t.Errorf("%s, %d keys: a hit waits up to %.1f ms, and %.1f ms at an idle daemon; want at most %d ms more",
					name, keys, wait, idle, maxWait)
			}
			if peak := table.median(name, 5) - table.median(name, 6); peak > maxPeak {
				t.Errorf("%s, %d keys: the peak of the memory is %.0f MB without the journal, want at most %d MB",
					name, keys, peak, maxPeak)
			}
		}
	}
}

// measureFlush returns the figures of one flush, in the order of the table.
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
	cmd := exec.Command(rig.Binary, config)
	if name == "original" {
		cmd = exec.Command("node", filepath.Join(original, "bin", "pixel-ping"), config)
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
	return []float64{
		longest.Seconds() * 1e3, idleLongest.Seconds() * 1e3, (cpuAfter - cpu).Seconds(), wall.Seconds(),
		float64(before) / 1e6, float64(s.Memory(t).Peak) / 1e6, float64(journal) / 1e6,
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
