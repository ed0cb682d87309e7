//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// supervise runs the daemon again and again with the sockets that it was given
// itself, as systemd does. Its arguments are how often, the program and its
// configuration.
const supervise = `
n=$1; shift
while [ $n -gt 0 ]; do
	sh -c 'export LISTEN_PID=$$; exec "$@"' sh "$@" &
	echo "started $!"
	wait $! || echo "failed: $?"
	n=$((n - 1))
done
`

// With an inherited socket the daemon is restarted ten times under a load of new
// connections. None is refused or reset, and every hit is answered and delivered.
func TestRestarts(t *testing.T) {
	const restarts, clients, between = 10, 8, 400 // hits from one restart to the next
	received := rig.NewEndpoint(t)
	port := rig.FreePort(t)
	address := "127.0.0.1:" + port
	config := rig.WriteConfig(t, map[string]any{"interval": 0.5, "endpoint": "http://" + received.Address})
	output := rig.NewOutput()
	p := rig.Start(t, exec.Command("systemd-socket-activate", "--listen="+address,
		"sh", "-c", supervise, "sh", strconv.Itoa(restarts+1), rig.Binary, config), output, output)
	p.Stdout.WaitLine(t, 0, "Listening on ")

	var answered, begun atomic.Int64
	var loads sync.WaitGroup
	end := make(chan struct{})
	stop := sync.OnceFunc(func() { close(end) })
	defer loads.Wait()
	defer stop()
	for range clients {
		loads.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				if err := hitOnce(address, begun.Add(1)); err != nil {
					t.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	// A browser that connects ahead is silent.
	silent, err := rig.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	skip := 0
	for i := range restarts + 1 {
		line := output.WaitLine(t, skip, "started ")
		skip = len(output.String())
		pid, err := strconv.Atoi(line[len("started "):])
		if err != nil {
			t.Fatal(err)
		}
		daemon := func(s syscall.Signal) { syscall.Kill(pid, s) }
		defer func() {
			p.Cmd.Process.Kill() // first, or the shell would start another daemon
			daemon(syscall.SIGKILL)
		}()
		if i == restarts {
			// The last one goes on until all are answered.
			stop()
			loads.Wait()
		} else {
			for want, limit := answered.Load()+between, time.Now().Add(rig.Deadline); answered.Load() < want; {
				if time.Now().After(limit) || t.Failed() {
					t.Fatalf("restart %d: %d hits are answered, want %d; the output is:\n%s", i, answered.Load(), want, output)
				}
				<-time.After(time.Millisecond)
			}
		}
		daemon(syscall.SIGTERM)
	}
	p.Wait(t)
	if failed := regexp.MustCompile(`(?m)^(failed|pixel-ping):? .*`).FindAllString(output.String(), -1); failed != nil {
		t.Errorf("the daemons say %q", failed)
	}
	received.Close()
	var delivered int64
	for len(received.Requests) > 0 {
		delivered += sum(rig.Counts[int64](t, received.Body(t)))
	}
	hits.restarts.Add(delivered)
	if n := answered.Load(); delivered != n || n < restarts*between {
		t.Errorf("%d hits are delivered, and %d were answered, want %d or more", delivered, n, restarts*between)
	}
}

// hitOnce makes a hit over a connection of its own.
func hitOnce(address string, i int64) error {
	conn, err := rig.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	target := rig.Target(fmt.Sprint("article-", i%100))
	if _, err := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	answer, err := rig.ReadAnswer(bufio.NewReader(conn))
	if err != nil {
		return fmt.Errorf("hit %d: %w", i, err)
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("hit %d: status %d", i, answer.StatusCode)
	}
	return nil
}
