package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
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

// original is the folder in which npm has installed the original. make
// conformance sets it.
var original = os.Getenv("ORIGINAL")

// TestMain says what is compared, and fails if a part is missing. In the end it
// fails if one of the differences has not shown: then it is none any more.
func TestMain(m *testing.M) {
	rig.NeedTarget("make conformance")
	node, err := exec.Command("node", "--version").Output()
	if err != nil {
		fatal("node is missing: ", err)
	}
	if !bytes.HasPrefix(node, []byte("v20.")) {
		fatal("the original is to run on Node 20, not on ", string(node))
	}
	ours, err := exec.Command(rig.Binary, "--version").Output()
	if err != nil {
		fatal("PIXEL_PING=", rig.Binary, " is not our binary: ", err)
	}
	theirs, err := exec.Command("node", script(), "--version").Output()
	if err != nil {
		fatal("ORIGINAL=", original, " does not have the original: ", err)
	}
	fmt.Printf("Comparing %s with %s on Node %s.\n", bytes.TrimSpace(ours), bytes.TrimSpace(theirs), bytes.TrimSpace(node))
	status := m.Run()
	if flag.Lookup("test.run").Value.String() == "" && status == 0 {
		for _, d := range Differences {
			if _, ok := shown.Load(d.Name); !ok && d.NotCompared == "" {
				fmt.Printf("FAIL: the difference %q has not shown.\n", d.Name)
				status = 1
			}
		}
	}
	os.Exit(status)
}

func fatal(args ...any) {
	fmt.Println("FAIL: " + strings.TrimSpace(fmt.Sprint(args...)))
	os.Exit(1)
}

func script() string {
	return filepath.Join(original, "node_modules", "pixel-ping", "bin", "pixel-ping")
}

// shown has the names of the differences that were met.
var shown sync.Map

// result is how a program has ended that does not serve, or has not for long.
type result struct {
	status         int // -1 if it was killed
	stdout, stderr string
}

// run runs one of the two with arguments to its end. If there is none within a
// few seconds, as with a server that serves, it is killed.
func run(t *testing.T, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	c := command(name, args...)
	cmd := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Run()
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// differ notes that a difference was met, which must be one of the table.
func differ(t *testing.T, name string) {
	t.Helper()
	if !slices.ContainsFunc(Differences, func(d Difference) bool { return d.Name == name }) {
		t.Fatalf("there is no difference %q in the table", name)
	}
	shown.Store(name, true)
}

// side is one of the two, running with an endpoint of its own.
type side struct {
	*rig.Process
	name     string
	address  string // host:port
	endpoint *rig.Endpoint
}

// command returns the command line that runs one of the two with arguments.
func command(name string, args ...string) *exec.Cmd {
	if name == "original" {
		return exec.Command("node", append([]string{script()}, args...)...)
	}
	return exec.Command(rig.Binary, args...)
}

// pair starts both with the same settings, but for the ports, and a long
// interval unless they have another.
func pair(t *testing.T, settings map[string]any) (theirs, ours *side) {
	t.Helper()
	return startSide(t, "original", settings), startSide(t, "ours", settings)
}

// startSide starts one of the two. A path in settings for the endpoint is put
// behind its address.
func startSide(t *testing.T, name string, settings map[string]any) *side {
	t.Helper()
	port := rig.FreePort(t)
	s := &side{name: name, address: "127.0.0.1:" + port, endpoint: rig.NewEndpoint(t)}
	all := map[string]any{"host": "127.0.0.1", "port": port, "interval": 86400, "endpoint": "/save"}
	maps.Copy(all, settings)
	if path, ok := all["endpoint"].(string); ok && strings.HasPrefix(path, "/") {
		all["endpoint"] = "http://" + s.endpoint.Address + path
	}
	s.Process = rig.Start(t, command(name, rig.WriteConfig(t, all)), rig.NewOutput(), rig.NewOutput())
	s.WaitListening(t, s.address)
	// What is said at the start is not to come behind what is said later.
	if name == "ours" {
		s.Stdout.WaitLine(t, 0, "Serving")
	} else if all["endpoint"] != nil {
		s.Stdout.WaitLine(t, 0, "Flushing")
	} else {
		s.Stderr.WaitLine(t, 0, "No endpoint")
	}
	return s
}

// flush forces a flush and returns the body that it posts.
func (s *side) flush(t *testing.T) string {
	t.Helper()
	s.Signal(t, syscall.SIGUSR2)
	return s.endpoint.Body(t)
}

// counts forces a flush and returns what it posts, decoded.
func (s *side) counts(t *testing.T) map[string]any {
	t.Helper()
	return decode(t, s.flush(t))
}

func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	form, err := url.ParseQuery(body)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var counts map[string]any
	if err := json.Unmarshal([]byte(form.Get("json")), &counts); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return counts
}

// send writes a request and returns all that is answered until the connection
// ends. An answer that does not come within the time that an exception of the
// original takes to show is an empty one.
func (s *side) send(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.address)
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

// exception is what the original logs in the place of an answer.
const exception = "Uncaught Exception:"

// get is send of a GET request for target.
func (s *side) get(t *testing.T, target string) answer {
	t.Helper()
	return parseAnswer(s.send(t, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

// answer is what both sides must agree on: the status, the body, and the headers
// that the original sets.
type answer struct {
	status, headers, body string
}

func (a answer) String() string {
	if a.status == "" {
		return "no answer"
	}
	return fmt.Sprintf("%s [%s] %d bytes", a.status, a.headers, len(a.body))
}

// parseAnswer takes one answer apart. Of an error that is answered before the
// handler is asked only the status is compared: its text is the server's own.
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
