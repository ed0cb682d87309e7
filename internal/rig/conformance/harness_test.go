//go:build unix

package conformance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// original is the folder in which npm installed the original. make conformance
// sets it.
var original = os.Getenv("ORIGINAL")

// compared counts what both programs were given, for the last line.
var compared struct{ targets, requests, flushes, starts atomic.Int64 }

// TestMain prints what is compared, and fails if a part is missing. In the end it
// fails if a listed difference was not seen, because it no longer exists then.
func TestMain(m *testing.M) {
	rig.NeedTarget("make conformance")
	node, err := exec.Command("node", "--version").Output()
	if err != nil {
		fatal("node is missing: ", err)
	}
	if !bytes.HasPrefix(node, []byte("v20.")) {
		fatal("the original must run on Node 20, not on ", string(node))
	}
	ours, err := exec.Command(rig.Binary, "--version").Output()
	if err != nil {
		fatal("PIXEL_PING=", rig.Binary, " is not the program under test: ", err)
	}
	theirs, err := exec.Command("node", script(), "--version").Output()
	if err != nil {
		fatal("ORIGINAL=", original, " does not hold the original: ", err)
	}
	fmt.Printf("Comparing %s with %s on Node %s.\n", bytes.TrimSpace(ours), bytes.TrimSpace(theirs), bytes.TrimSpace(node))
	status := m.Run()
	all, seen := flag.Lookup("test.run").Value.String() == "", 0
	for name := range Differences {
		if _, ok := shown.Load(name); ok {
			seen++
		} else if all && status == 0 && notCompared[name] == "" {
			fmt.Printf("FAIL: the difference %q was not seen.\n", name)
			status = 1
		}
	}
	rig.PrintSummary("conformance", status, fmt.Sprintf(
		"%s targets, %s requests, %s flushes and %s starts compared with %s: "+
			"the same except for %d of the %d listed differences",
		rig.Number(compared.targets.Load()), rig.Number(compared.requests.Load()), rig.Number(compared.flushes.Load()),
		rig.Number(compared.starts.Load()), bytes.TrimSpace(theirs), seen, len(Differences)))
	os.Exit(status)
}

func fatal(args ...any) {
	fmt.Println("FAIL: " + strings.TrimSpace(fmt.Sprint(args...)))
	os.Exit(1)
}

func script() string {
	return filepath.Join(original, "node_modules", "pixel-ping", "bin", "pixel-ping")
}

// shown holds the names of the differences that were seen.
var shown sync.Map

// result is how a program ended.
type result struct {
	status         int // -1 if it was killed
	stdout, stderr string
}

// run runs one of the two programs with arguments until it ends.
func run(t *testing.T, name string, args ...string) result {
	t.Helper()
	return runFor(t, rig.Deadline, name, args...)
}

// runFor is run for a program that may start to serve. It is killed after that time.
func runFor(t *testing.T, limit time.Duration, name string, args ...string) result {
	t.Helper()
	if name == "ours" {
		compared.starts.Add(1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	line := append(command(name), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = t.TempDir() // The original makes a socket there for a port that is no number.
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// differ notes that a difference was seen. It must be one of Differences.
func differ(t *testing.T, name string) {
	t.Helper()
	if Differences[name] == "" {
		t.Fatalf("the difference %q is not listed", name)
	}
	shown.Store(name, true)
}

// side is one of the two programs, running with an endpoint of its own.
type side struct {
	*rig.Daemon
	name     string // "original" or "ours"
	endpoint *rig.Endpoint
}

// command returns the command line that runs one of the two programs.
func command(name string) []string {
	if name == "original" {
		return []string{"node", script()}
	}
	return []string{rig.Binary}
}

// pair starts both programs with the same settings, except for the ports.
func pair(t *testing.T, settings map[string]any) (theirs, ours *side) {
	t.Helper()
	return startSide(t, "original", settings), startSide(t, "ours", settings)
}

// startSide starts one of the two programs. If settings has an endpoint that is a
// path, the address of the side's endpoint is put before it.
func startSide(t *testing.T, name string, settings map[string]any) *side {
	t.Helper()
	s := &side{name: name, endpoint: rig.NewEndpoint(t)}
	all := map[string]any{"endpoint": "/save"}
	maps.Copy(all, settings)
	if path, ok := all["endpoint"].(string); ok && strings.HasPrefix(path, "/") {
		all["endpoint"] = "http://" + s.endpoint.Address + path
	}
	s.Daemon = rig.StartProgram(t, all, command(name)...)
	s.WaitListening(t, s.Address)
	// The tests expect the lines of the start before all others.
	if name == "ours" {
		s.Stdout.WaitLine(t, 0, "Serving")
	} else if all["endpoint"] != nil {
		s.Stdout.WaitLine(t, 0, "Flushing")
	} else {
		s.Stderr.WaitLine(t, 0, "No endpoint")
	}
	return s
}

// flush forces a flush and returns the body of its request.
func (s *side) flush(t *testing.T) string {
	t.Helper()
	s.Signal(t, syscall.SIGUSR2)
	return s.endpoint.Body(t)
}

// counts forces a flush and returns its counts.
func (s *side) counts(t *testing.T) map[string]any {
	t.Helper()
	return rig.Counts[any](t, s.flush(t))
}

// send writes a request and returns everything that arrives until the connection
// ends. When the original logs an exception, it does not answer; then send closes
// the connection itself.
func (s *side) send(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	defer conn.Close()
	thrown := strings.Count(s.Stderr.String(), exception)
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	io.WriteString(conn, request)
	answer := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(conn)
		answer <- string(all)
	}()
	for {
		select {
		case all := <-answer:
			return all
		case <-time.After(50 * time.Millisecond):
			if strings.Count(s.Stderr.String(), exception) > thrown {
				conn.Close()
				return <-answer
			}
		}
	}
}

// exception is what the original logs when it does not answer a request.
const exception = "Uncaught Exception:"

// get sends a GET request for target and returns the answer.
func (s *side) get(t *testing.T, target string) answer {
	t.Helper()
	return parseAnswer(s.send(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

// answer is the part of an answer that must be the same from both programs: the
// status, the headers that the original sets, and the body. Of a status other than
// 200 and 404, which comes from the HTTP server and not from the program, only the
// status must be the same.
type answer struct {
	status, headers, body string
}

func (a answer) String() string {
	if a.status == "" {
		return "no answer"
	}
	return fmt.Sprintf("%s [%s] %d bytes", a.status, a.headers, len(a.body))
}

// parseAnswer parses the bytes of one answer.
func parseAnswer(text string) answer {
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	line, fields, _ := strings.Cut(head, "\r\n")
	var headers []string
	for field := range strings.SplitSeq(fields, "\r\n") {
		switch name, _, _ := strings.Cut(strings.ToLower(field), ":"); name {
		case "cache-control", "content-type", "content-disposition", "content-length":
			headers = append(headers, field)
		}
	}
	slices.Sort(headers)
	status := strings.TrimPrefix(line, "HTTP/1.1 ")
	if len(status) > 3 {
		status = status[:3]
	}
	if status != "200" && status != "404" {
		return answer{status: status}
	}
	return answer{status, strings.Join(headers, ", "), body}
}
