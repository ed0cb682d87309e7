//go:build unix

package conformance

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// status is an answer that consists of a status.
func status(code int) func(net.Conn) {
	return rig.Answer(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", code))
}

// answerAndReset is an answer followed by a reset of the connection.
func answerAndReset(text string) func(net.Conn) {
	return func(conn net.Conn) {
		rig.Answer(text)(conn)
		// The program has time to read the answer before the reset discards it.
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		conn.Read(make([]byte, 1))
		rig.Reset(conn)
	}
}

// ending flushes a hit to an endpoint that gives this answer, or refuses the
// connection if answer is nil. The program is to log so many lines that end a flush.
// ending returns what it logs, and the counts of the next flush.
func (s *side) ending(t *testing.T, key string, answer func(net.Conn), lines int) string {
	t.Helper()
	s.get(t, "/pixel.gif?key="+key)
	stdout, stderr := len(s.Stdout.String()), len(s.Stderr.String())
	if answer != nil {
		s.endpoint.SetAnswer(answer)
	} else {
		s.endpoint.Close()
	}
	s.Signal(t, syscall.SIGUSR2)
	if answer != nil {
		s.endpoint.Next(t)
	} else {
		s.Stderr.WaitLine(t, stderr, "--- ")
		s.endpoint.Open(t)
	}
	s.settle(stdout, stderr, lines)
	logged := s.Stdout.String()[stdout:] + s.Stderr.String()[stderr:]
	s.endpoint.SetAnswer(status(204))
	stdout = len(s.Stdout.String())
	next := s.counts(t)
	s.Stdout.WaitLine(t, stdout, "--- flushed ---")
	// What is counted meanwhile follows in the same flush of ours. An empty flush begins when that one is over.
	stdout = len(s.Stdout.String())
	s.flush(t)
	s.Stdout.WaitLine(t, stdout, "--- flushed ---")
	return strings.ReplaceAll(fmt.Sprintf("%s\tthen %v", logged, next), s.endpoint.Address, "ADDRESS")
}

// settle waits until the output, without its first stdout and stderr bytes, has as many
// lines that end a flush as there are to be, and for a tenth of a second after that, in
// case there are more.
func (s *side) settle(stdout, stderr, lines int) {
	for limit := time.Now().Add(rig.Deadline); time.Now().Before(limit); <-time.After(5 * time.Millisecond) {
		if logged := s.Stdout.String()[stdout:] + s.Stderr.String()[stderr:]; strings.Count(logged, "--- ") >= lines {
			break
		}
	}
	<-time.After(100 * time.Millisecond)
}

// For each way in which a flush can end, both programs keep or drop the counts and
// log the same.
func TestEndings(t *testing.T) {
	for _, discard := range []bool{false, true} {
		theirs, ours := pair(t, map[string]any{"discard": discard})
		for i, test := range []struct {
			name, difference string
			answer           func(net.Conn)
		}{
			{"200", "", status(200)},
			{"201", "", status(201)},
			{"204", "", status(204)},
			{"299", "", status(299)},
			{"300", "", status(300)},
			{"302", "redirects",
				rig.Answer("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")},
			{"304", "", status(304)},
			{"400", "", status(400)},
			{"404", "", status(404)},
			{"413", "", status(413)},
			{"500", "", status(500)},
			{"503", "", status(503)},
			{"200 with a body", "", rig.Answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsaved")},
			{"500 with a body", "", rig.Answer("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry")},
			{"103 and 200", "",
				rig.Answer("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")},
			{"close", "", rig.Answer("")},
			{"reset", "", rig.Reset},
			{"refused", "", nil},
			{"no HTTP", "reasons of a failed connection", rig.Answer("SSH-2.0\r\n")},
			{"101", "101", rig.Answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")},
			{"200 and a reset", "answer and reset", answerAndReset("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsa")},
			{"500 and a reset", "answer and reset", answerAndReset("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nso")},
		} {
			key := fmt.Sprintf("key%d", i)
			lines := 1 // of the original
			if test.difference == "101" {
				lines = 0
			} else if test.difference == "answer and reset" {
				lines = 2
			}
			ends := make(chan string, 1)
			go func() { ends <- theirs.ending(t, key, test.answer, lines) }()
			b := ours.ending(t, key, test.answer, 1)
			a := <-ends
			compared.flushes.Add(1)
			what := fmt.Sprintf("%s, discard %v", test.name, discard)
			switch same := a == b; {
			case test.difference == "" && !same:
				t.Errorf("%s\noriginal:\n%s\nours:\n%s", what, a, b)
			case test.difference != "" && !same:
				differ(t, test.difference)
			case test.difference != "" && !discard:
				t.Errorf("%s: the same from both, want the difference %q:\n%s", what, test.difference, a)
			}
		}
	}
}

// After a lost answer, the original merges the counts into the next flush. Ours
// sends the same counts again first, with the same id.
func TestFlushesInDoubt(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){"close": rig.Answer(""), "reset": rig.Reset, "502": status(502)} {
		theirs, ours := pair(t, nil)
		var next, ids []string
		for _, s := range []*side{theirs, ours} {
			s.endpoint.SetAnswer(answer)
			s.get(t, "/pixel.gif?key=a")
			s.Signal(t, syscall.SIGUSR2)
			_, headers := head(t, s.endpoint.Next(t))
			s.Stderr.WaitLine(t, 0, "--- ")
			s.endpoint.SetAnswer(status(204))
			s.get(t, "/pixel.gif?key=b")
			s.Signal(t, syscall.SIGUSR2)
			request := s.endpoint.Next(t)
			_, again := head(t, request)
			_, body, _ := strings.Cut(request, "\r\n\r\n")
			next = append(next, fmt.Sprint(rig.Counts[int64](t, body)))
			ids = append(ids, headers["Idempotency-Key"], again["Idempotency-Key"])
		}
		next = append(next, fmt.Sprint(rig.Counts[int64](t, ours.endpoint.Body(t))))
		if want := []string{"map[a:1 b:1]", "map[a:1]", "map[b:1]"}; !slices.Equal(next, want) {
			t.Errorf("%s: the next flushes have %q, want %q", name, next, want)
		}
		if ids[0] != "" || ids[1] != "" || len(ids[2]) < len(`""`)+26 || ids[2] != ids[3] {
			t.Errorf("%s: the ids are %q, want two of ours that are the same", name, ids)
		}
	}
	differ(t, "flushes in doubt")
	differ(t, "ids")
}

// When the application answers 413, the original keeps the batch. Ours sends it in
// parts.
func TestTooLarge(t *testing.T) {
	theirs, ours := pair(t, nil)
	var counts [2]map[string]any
	for i, s := range []*side{theirs, ours} {
		s.get(t, "/pixel.gif?key=a")
		s.get(t, "/pixel.gif?key=b")
		answers := make(chan int, 3)
		for _, code := range []int{413, 200, 200} {
			answers <- code
		}
		s.endpoint.SetAnswer(func(conn net.Conn) { status(<-answers)(conn) })
		s.flush(t)
		if s == ours {
			s.endpoint.Next(t)
			s.endpoint.Next(t)
		}
		s.settle(0, 0, 1)
		s.endpoint.SetAnswer(status(200))
		counts[i] = s.counts(t)
	}
	if len(counts[0]) != 2 || len(counts[1]) != 0 {
		t.Errorf("the next flush has %v and %v, want both keys from the original and none from ours", counts[0], counts[1])
	}
	differ(t, "too large for the application")
}

// When the keys take more than maxmemory, only the original counts further keys.
func TestMemory(t *testing.T) {
	theirs, ours := pair(t, map[string]any{"maxmemory": 0.02}) // about 20 kB
	for i := range 10 {
		target := fmt.Sprint("/pixel.gif?key=", i, strings.Repeat("x", 5000))
		theirs.get(t, target)
		ours.get(t, target)
	}
	held := len(theirs.counts(t))
	body := ours.endpoint.Body(t) // A full store is flushed without a signal.
	if n := len(rig.Counts[int64](t, body)); held != 10 || n >= 10 {
		t.Errorf("%d and %d keys are counted, want 10 and fewer", held, n)
	}
	differ(t, "memory")
}

// The original begins a flush while another one runs. Ours does not.
func TestOverlap(t *testing.T) {
	theirs, ours := pair(t, nil)
	release := make(chan bool)
	for _, s := range []*side{theirs, ours} {
		s.endpoint.SetAnswer(func(conn net.Conn) {
			<-release
			status(204)(conn)
		})
		s.Signal(t, syscall.SIGUSR2)
		s.endpoint.Next(t)
		s.Signal(t, syscall.SIGUSR2)
	}
	theirs.endpoint.Next(t)
	select {
	case <-ours.endpoint.Requests:
		t.Error("our flushes overlap")
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	ours.endpoint.Next(t)
	differ(t, "one flush at a time")
}
