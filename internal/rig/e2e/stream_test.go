//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

const streamRecipe = "../../../testdata/recipes/stream/"

// stream is what stands behind nginx in the recipe: rsyslog, and a Redis.
type stream struct {
	folder         string // holds the queue of rsyslog, and the files of Redis
	logs, port     string // the UDP port of rsyslog, and the TCP port of Redis
	rsyslog, redis *rig.Process
}

func startStream(t *testing.T) *stream {
	t.Helper()
	s := &stream{folder: t.TempDir(), logs: rig.FreePort(t), port: rig.FreePort(t)}
	recipe, err := os.ReadFile(streamRecipe + "rsyslog.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(recipe)
	ports := map[string]string{`port="5514"`: `port="` + s.logs + `"`, `serverport="6379"`: `serverport="` + s.port + `"`}
	for was, is := range ports {
		if strings.Count(text, was) != 1 {
			t.Fatalf("rsyslog.conf does not have %s once", was)
		}
		text = strings.Replace(text, was, is, 1)
	}
	// Debian's configuration includes that of the recipe after these lines.
	debian := "module(load=\"imuxsock\" SysSock.Use=\"off\")\n$WorkDirectory " + s.folder + "\n"
	if err := os.WriteFile(filepath.Join(s.folder, "rsyslog.conf"), []byte(debian+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.startRedis(t)
	s.startRsyslog(t)
	return s
}

// startRedis starts Redis as the unit does, and opens its port when it is ready.
// Options are for Redis.
func (s *stream) startRedis(t *testing.T, options ...string) {
	t.Helper()
	unit, err := os.ReadFile(streamRecipe + "redis-unit.conf")
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer("/run/redis", s.folder, "6379", s.port).Replace(string(unit))
	_, start, _ := strings.Cut(replaced, "--daemonize no ")
	start, _, _ = strings.Cut(start, "\n")
	_, open, found := strings.Cut(replaced, "ExecStartPost=/usr/bin/")
	open, _, _ = strings.Cut(open, "\n")
	if !found {
		t.Fatal("the unit does not open the port")
	}
	options = append(options, "--bind", "127.0.0.1", "--dir", s.folder)
	output := rig.NewOutput()
	s.redis = rig.Start(t, exec.Command("redis-server", append(strings.Fields(start), options...)...), output, output)
	ping := func() string {
		text, _ := exec.Command("redis-cli", "-s", s.folder+"/redis.sock", "PING").CombinedOutput()
		return strings.TrimSpace(string(text))
	}
	for limit := time.Now().Add(rig.Deadline); ping() != "PONG"; <-time.After(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("Redis is not ready; its output is:\n%s", output)
		}
	}
	if text, err := exec.Command("sh", "-c", open).CombinedOutput(); err != nil || string(text) != "OK\n" {
		t.Fatalf("%s: %v: %s", open, err, text)
	}
}

// startRsyslog starts rsyslog and waits until it receives.
func (s *stream) startRsyslog(t *testing.T) {
	t.Helper()
	output := rig.NewOutput()
	s.rsyslog = rig.Start(t, exec.Command("rsyslogd", "-n", "-f", filepath.Join(s.folder, "rsyslog.conf"),
		"-i", filepath.Join(s.folder, "pid")), output, output)
	s.waitReceived(t)
}

// waitReceived waits until rsyslog's socket is open and holds no datagrams.
func (s *stream) waitReceived(t *testing.T) {
	t.Helper()
	port, _ := strconv.Atoi(s.logs)
	address, queues := fmt.Sprintf("0100007F:%04X", port), ""
	for limit := time.Now().Add(rig.Deadline); queues != "00000000:00000000"; <-time.After(10 * time.Millisecond) {
		sockets, err := os.ReadFile("/proc/net/udp")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(sockets)) {
			if fields := strings.Fields(line); fields[1] == address {
				queues = fields[4]
				if dropped := fields[len(fields)-1]; dropped != "0" {
					t.Fatalf("%s datagrams did not fit into the buffer", dropped)
				}
			}
		}
		if time.Now().After(limit) {
			t.Fatalf("rsyslog does not receive: %q; its output is:\n%s", queues, s.rsyslog.Stdout)
		}
	}
}

// cli runs redis-cli and returns the lines of its output.
func (s *stream) cli(t *testing.T, args ...string) []string {
	t.Helper()
	text, err := exec.Command("redis-cli", append([]string{"-p", s.port}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// Each of 10,000 hits becomes one entry of the stream, although Redis is stopped for a
// while in the middle and then needs a while to load its file.
func TestStreamHasWhatIsCounted(t *testing.T) {
	t.Parallel()
	s := startStream(t)
	accessLog, err := os.ReadFile(streamRecipe + "nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	const agent = "100% \"a  b\" \xff %s" // omhiredis splits at spaces, and takes % for a format
	received := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + received.Address})
	n := startNginx(t, "../../../testdata/recipes/nginx/front.conf", "127.0.0.1:9187", d.Address,
		"\t\taccess_log /var/log/nginx/pixel-ping.log hit buffer=64k flush=1s;\n",
		strings.Replace(string(accessLog), ":5514", ":"+s.logs, 1))

	keys := []string{
		"article-42", "ü", "日本", "🙂", `"`, `\`, `"}`, "\x00", "\n", "\x7f", "a b", "a&b", "a,b", "%s%n", "%41", "%",
		"__proto__", `{"event":"click","at":[1,2.5]}`, strings.Repeat("%", 4000), strings.Repeat("x", 14000),
	}
	const total, clients = 10_000, 16 // nginx closes a connection after 1,000 requests
	var answered atomic.Int64
	third, twoThirds, loaded := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(loaded)
		n.load(t, clients, func(client int) iter.Seq2[string, string] {
			return func(yield func(key, agent string) bool) {
				for i := client; i < total; i += clients {
					key := fmt.Sprintf("key %d", i%100)
					if i%20 == 0 {
						key = keys[i/20%len(keys)]
					}
					if !yield(key, agent) {
						return
					}
					switch answered.Add(1) {
					case total / 3:
						close(third)
					case total * 2 / 3:
						close(twoThirds)
					}
				}
			}
		})
	}()
	wait := func(reached <-chan struct{}) {
		t.Helper()
		select {
		case <-reached:
		case <-time.After(rig.Deadline):
			t.Fatal("the hits are not answered")
		}
	}
	wait(third)
	s.redis.Signal(t, syscall.SIGTERM)
	s.redis.Wait(t)
	wait(twoThirds)
	queued := func() bool {
		names, _ := filepath.Glob(s.folder + "/pixel-ping.0*")
		return len(names) > 0
	}
	for limit := time.Now().Add(rig.Deadline); !queued(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("rsyslog has no queue on disk; its output is:\n%s", s.rsyslog.Stdout)
		}
	}
	// Redis needs a while to load what it has written, and answers with errors meanwhile.
	s.startRedis(t, "--key-load-delay", "200")
	wait(loaded)
	s.waitReceived(t)

	d.Stop(t)
	counted := rig.Counts[int64](t, received.Body(t))
	entries := func() string { return s.cli(t, "XLEN", "hits")[0] }
	for limit := time.Now().Add(rig.Deadline); entries() != "10000"; <-time.After(100 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Errorf("the stream has %s entries, want 10,000; rsyslog's output is:\n%s", entries(), s.rsyslog.Stdout)
			break
		}
	}
	streamed := make(map[string]int64)
	// An entry is printed as its id, the name of its field, and the value.
	for entry := range slices.Chunk(s.cli(t, "XRANGE", "hits", "-", "+"), 3) {
		var hit line
		if len(entry) < 3 || entry[1] != "hit" {
			t.Fatalf("%.300q is no entry with one hit", entry)
		}
		if err := json.Unmarshal([]byte(entry[2]), &hit); err != nil {
			t.Fatalf("%.300q: %v", entry, err)
		}
		if hit.Status != 200 || hit.Agent != strings.ToValidUTF8(agent, "\ufffd") || net.ParseIP(hit.Address) == nil {
			t.Errorf("the entry %s is %.300q", entry[0], entry[2])
		}
		key, err := url.QueryUnescape(hit.Key)
		if err != nil {
			t.Error(err)
		}
		streamed[key]++
	}
	hits.stream.Add(sum(streamed))
	if !maps.Equal(streamed, counted) {
		for key := range counted {
			if streamed[key] != counted[key] {
				t.Errorf("%.50q has %d entries but is counted %d times", key, streamed[key], counted[key])
			}
		}
		t.Errorf("%d entries, but %d hits are counted", sum(streamed), sum(counted))
	}
}
