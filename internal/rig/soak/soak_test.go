//go:build unix

package soak

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// ledger counts the hits of each key. Its methods may be called by many
// goroutines at once.
type ledger struct {
	mu       sync.Mutex
	answered map[string]int64 // hits that the daemon answered
	maybe    map[string]int64 // hits that got no answer: the daemon may have counted them
	saved    map[string]int64 // hits that the application saved
}

func newLedger() *ledger {
	return &ledger{answered: make(map[string]int64), maybe: make(map[string]int64), saved: make(map[string]int64)}
}

func (l *ledger) add(to map[string]int64, key string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to[key] += n
}

func sum(of map[string]int64) (n int64) {
	for _, m := range of {
		n += m
	}
	return n
}

// click hits random keys until done is closed, with up to 200 hits on a
// connection. It tries again while the daemon is down.
func (l *ledger) click(address string, random *rand.Rand, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			<-time.After(5 * time.Millisecond)
			continue
		}
		conn.SetDeadline(time.Now().Add(rig.Deadline))
		r := bufio.NewReader(conn)
		for range 1 + random.IntN(200) {
			key := fmt.Sprint("page", random.IntN(500))
			if random.IntN(10) == 0 {
				key = fmt.Sprintf("invented %x %s", random.Uint64(), strings.Repeat("x", random.IntN(500)))
			}
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", rig.Target(key))
			answer, err := rig.ReadAnswer(r)
			if err != nil {
				l.add(l.maybe, key, 1)
				break
			}
			if answer.StatusCode == 200 {
				l.add(l.answered, key, 1)
			}
		}
		conn.Close()
	}
}

// application reads a flush and answers in one of many ways. It saves the counts
// only when it also answers with success.
func (l *ledger) application(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	switch rand.IntN(40) {
	case 0:
		rig.Reset(conn)
		return
	case 3:
		conn.SetDeadline(time.Now().Add(2 * time.Second))
		io.Copy(io.Discard, conn)
		return
	case 1:
		rig.Answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")(conn)
		rig.Reset(conn)
		return
	case 2:
		rig.Answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")(conn)
		return
	}
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	limit := int64(20000 + rand.IntN(100000))
	if r.ContentLength > limit {
		rig.Answer("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")(conn)
		io.Copy(io.Discard, io.LimitReader(r.Body, limit))
		return
	}
	var counts map[string]int64
	if json.Unmarshal([]byte(r.FormValue("json")), &counts) != nil {
		return
	}
	switch rand.IntN(20) {
	case 0:
		rig.Answer("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nso")(conn)
		rig.Reset(conn)
		return
	case 1:
		rig.Answer("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n")(conn)
		return
	case 2:
		return
	case 3:
		<-time.After(time.Duration(rand.IntN(1000)) * time.Millisecond)
	}
	for key, n := range counts {
		l.add(l.saved, key, n)
	}
	rig.Answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsa")(conn)
	if rand.IntN(2) == 0 {
		rig.Answer("ve")(conn)
	} else {
		rig.Reset(conn)
	}
}

// For SOAKTIME, daemons start, flush and stop one after the other under load.
// Every hit that was answered is saved once, or the log accounts for it.
func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SOAKTIME"))
	if err != nil {
		t.Fatalf("SOAKTIME: %v", err)
	}
	l := newLedger()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var application sync.WaitGroup
	application.Go(func() { rig.Accept(listener, l.application) })

	port := rig.FreePort(t)
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() { l.click("127.0.0.1:"+port, rand.New(rand.NewPCG(rand.Uint64(), 0)), done) })
	}
	var lost, doubt, refused int64
	starts := 0
	for end := time.Now().Add(duration); time.Now().Before(end); starts++ {
		a, b, c := generation(t, port, listener.Addr().String())
		lost, doubt, refused = lost+a, doubt+b, refused+c
	}
	close(done)
	clients.Wait()
	listener.Close()
	application.Wait()

	l.mu.Lock()
	defer l.mu.Unlock()
	answered, maybe, saved := sum(l.answered), sum(l.maybe), sum(l.saved)
	summary.ledger = fmt.Sprintf("%s hits answered by %d starts of the daemon, and %s without an answer: "+
		"%s delivered, %s logged as not delivered and %s as not counted; none lost, none doubled. ",
		rig.Number(answered), starts, rig.Number(maybe), rig.Number(saved), rig.Number(lost), rig.Number(refused))
	if known := saved + lost + refused; known < answered || known-doubt > answered+maybe {
		t.Errorf("%d hits are accounted for, or up to %d fewer, want %d to %d", known, doubt, answered, answered+maybe)
	}
	for key, n := range l.saved {
		if most := l.answered[key] + l.maybe[key]; n > most {
			t.Errorf("%.50s: %d hits are saved, but at most %d were made", key, n, most)
		}
	}
	if answered < 1000 || saved < 1000 {
		t.Errorf("%d hits were answered and %d saved, want at least 1000 each", answered, saved)
	}
}

// generation runs one daemon for a few seconds, forces flushes at random times,
// and stops it. It returns what the log tells.
func generation(t *testing.T, port, endpoint string) (lost, doubt, refused int64) {
	t.Helper()
	daemon := rig.StartDaemon(t, map[string]any{
		"port": port, "interval": 0.3, "endpoint": "http://" + endpoint + "/save",
		"maxmemory": []float64{0.2, 256}[rand.IntN(2)],
	})
	for range 1 + rand.IntN(20) {
		<-time.After(time.Duration(rand.IntN(200)) * time.Millisecond)
		daemon.Signal(t, syscall.SIGUSR2)
	}
	daemon.Signal(t, []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP}[rand.IntN(3)])
	watch := rig.StartStopwatch(t)
	status := daemon.Wait(t)
	if took := watch.Took(); took > 9*time.Second {
		t.Errorf("a stop took %v, want at most 9s", took)
	}
	return told(t, daemon, status)
}

// told returns how many hits the log of a daemon that has ended says were not
// delivered, how many fewer these may be, and how many were not counted. They may be fewer
// if the application may have saved some, or if a stop had no time to count.
func told(t *testing.T, daemon *rig.Daemon, status int) (lost, doubt, refused int64) {
	t.Helper()
	for line := range strings.Lines(daemon.Stderr.String()) {
		text, found := strings.CutPrefix(line, "pixel-ping: ")
		if !found {
			continue
		}
		text = strings.TrimPrefix(text, daemon.Cmd.Args[len(daemon.Cmd.Args)-1]+": ")
		text, aside := strings.CutPrefix(text, "refused by the application: ")
		text, upTo := strings.CutPrefix(text, "up to ")
		n, err := strconv.ParseInt(strings.Fields(text)[0], 10, 64)
		switch {
		case strings.HasPrefix(text, "maxconnections: "), strings.HasPrefix(text, "the application "):
		case err == nil && strings.Contains(text, " not delivered") && !aside:
			lost += n
			if _, may, found := strings.Cut(text, " not delivered ("); found {
				n, _ := strconv.ParseInt(strings.Fields(may)[0], 10, 64)
				doubt += n
			} else if upTo {
				doubt += n
			}
		case err == nil && (aside || strings.Contains(text, " not counted") || strings.Contains(text, " dropped, ")):
			refused += n
		case strings.Contains(text, "may be counted twice"):
			// This application saves nothing unless it answers with success.
		default:
			t.Errorf("the standard error has the line %q", line)
		}
	}
	if (status == 1) != (lost > 0) {
		t.Errorf("exit status %d with %d hits not delivered", status, lost)
	}
	return lost, doubt, refused
}
