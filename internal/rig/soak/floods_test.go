//go:build unix

package soak

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// floodSize returns how many hostile connections there are, how many are opened a
// second, for how long visitors come when all are open, and the settings of
// maxconnections, 0 for the default. FLOOD=full is the size of an attack. Without it,
// the size is just enough to exceed the limit of 500 connections.
func floodSize() (connections, rate int, visits time.Duration, limits []int) {
	if os.Getenv("FLOOD") == "full" {
		return 17_000, 1000, 10 * time.Second, []int{0, 500}
	}
	return 700, 500, time.Second, []int{500}
}

// The server keeps each kind of hostile connection open while there is room, so the
// floods are what they are meant to be. None of them makes a hit that counts.
func TestHostileConnectionsStayOpen(t *testing.T) {
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	application := rig.NewEndpoint(t)
	d := rig.StartDaemon(t, map[string]any{
		"endpoint": "http://" + application.Address,
		"sslcert":  filepath.Join(folder, "cert.pem"), "sslkey": filepath.Join(folder, "key.pem"),
	})
	var conns []net.Conn
	for _, kind := range floodings {
		conn, err := kind.open(d.Address)
		if err != nil {
			t.Fatalf("%s: %v", kind.name, err)
		}
		defer abort(conn)
		conns = append(conns, conn)
	}
	limit := time.Now().Add(500 * time.Millisecond)
	for i, conn := range conns {
		conn.SetReadDeadline(limit)
		if _, err := io.ReadAll(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection ends with %v", floodings[i].name, err)
		}
	}
	d.Signal(t, syscall.SIGUSR2)
	if got := application.Body(t); got != "json=%7B%7D" {
		t.Errorf("received %s, want no counts", got)
	}
}

// Under each flood, honest visitors are answered, memory is bounded, and a stop
// delivers every hit within 9 seconds.
func TestFloods(t *testing.T) {
	connections, rate, visits, limits := floodSize()
	rig.RaiseDescriptors(t, connections+1000)
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	var all floodFigures
	for _, kind := range floodings {
		for _, limit := range limits {
			t.Run(fmt.Sprintf("%s, maxconnections %d", kind.name, limit), func(t *testing.T) {
				f := &flood{flooding: kind, connections: connections, rate: rate}
				testFlood(t, f, folder, limit, visits, &all)
			})
		}
	}
	summary.floods = fmt.Sprintf("During %d floods of %s connections, %s visitors were answered, 99 %% within %v; "+
		"at most %d MB and a stop of %v.", len(floodings)*len(limits), rig.Number(all.connections),
		rig.Number(all.visitors), all.slowest.Round(time.Millisecond), all.peak/1e6, all.stop.Round(time.Millisecond))
}

// floodFigures are what TestFloods finds, for the last line.
type floodFigures struct {
	connections, visitors int64
	slowest               time.Duration // the largest 99th percentile of the visitors' times
	stop                  time.Duration // the longest
	peak                  int64         // bytes
}

// testFlood runs one flood against a daemon with a limit, or the default if it is 0,
// and adds what it finds to all.
func testFlood(t *testing.T, f *flood, certificate string, limit int, visits time.Duration, all *floodFigures) {
	application := rig.NewEndpoint(t)
	settings := map[string]any{
		"endpoint": "http://" + application.Address,
		"sslcert":  filepath.Join(certificate, "cert.pem"), "sslkey": filepath.Join(certificate, "key.pem"),
	}
	if limit > 0 {
		settings["maxconnections"] = limit
	}
	d := rig.StartDaemon(t, settings)
	f.address = d.Address
	stopped := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() { f.run(stopped) })

	ramp := time.Duration(f.connections) * time.Second / time.Duration(f.rate)
	began := time.Now()
	took := visit(t, d.Address, ramp+visits)
	f.mu.Lock()
	opened := f.opened
	f.mu.Unlock()
	opening := time.Since(began)
	peak := d.Memory(t).Peak

	watch := rig.StartStopwatch(t)
	d.Signal(t, syscall.SIGTERM)
	body := application.Body(t)
	status := d.Wait(t)
	stop := watch.Took()
	close(stopped)
	flooding.Wait()

	p99 := took[len(took)*99/100]
	all.connections += int64(opened)
	all.visitors += int64(len(took))
	all.slowest, all.stop, all.peak = max(all.slowest, p99), max(all.stop, stop), max(all.peak, peak)
	t.Logf("%d connections, %.0f a second; %d visitors, p99 %v; peak memory %d MB; stop %v",
		opened, float64(opened)/opening.Seconds(), len(took), p99.Round(time.Millisecond), peak/1e6,
		stop.Round(time.Millisecond))
	// A short flood runs in CI, beside whatever else the machine does.
	limit99 := 5 * time.Second
	if os.Getenv("FLOOD") == "full" {
		limit99 = time.Second
	}
	if p99 > limit99 {
		t.Errorf("the 99th percentile of the visitors' times is %v, want at most %v", p99, limit99)
	}
	if peak > 600e6 {
		t.Errorf("peak memory %d MB, want at most 600 MB", peak/1e6)
	}
	if stop > 9*time.Second || status != 0 {
		t.Errorf("the stop took %v with exit status %d, want at most 9s and 0; the standard error is:\n%s",
			stop, status, d.Stderr)
	}
	if want := map[string]int64{"visitor": int64(len(took))}; !maps.Equal(rig.Counts[int64](t, body), want) {
		t.Errorf("delivered %s, want %v", body, want)
	}
}

// A spike of visitors over TLS who all want to stay is answered whole, and each hit
// counts, though there is no room for all of them to stay.
func TestSpike(t *testing.T) {
	visitors, settings := 700, map[string]any{"maxconnections": 500}
	if os.Getenv("FLOOD") == "full" {
		visitors, settings = 19_000, make(map[string]any)
	}
	rig.RaiseDescriptors(t, visitors+1000)
	folder := t.TempDir()
	rig.WriteCertificate(t, folder)
	application := rig.NewEndpoint(t)
	settings["endpoint"] = "http://" + application.Address
	settings["sslcert"], settings["sslkey"] = filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	d := rig.StartDaemon(t, settings)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for next.Add(1) <= int64(visitors) && !t.Failed() {
				conn, err := dialTLS(d.Address, "GET "+rig.Target("visitor")+" HTTP/1.1\r\nHost: x\r\n\r\n")
				if err == nil {
					defer abort(conn) // until all have come
					_, err = rig.ReadAnswer(bufio.NewReader(conn))
				}
				if err != nil {
					t.Errorf("a visitor is not answered: %v", err)
				}
			}
		})
	}
	workers.Wait()
	peak := d.Memory(t).Peak
	d.Signal(t, syscall.SIGTERM)
	if got := rig.Counts[int64](t, application.Body(t))["visitor"]; got != int64(visitors) {
		t.Errorf("%d hits are delivered, want %d", got, visitors)
	}
	if peak > 600e6 {
		t.Errorf("peak memory %d MB, want at most 600 MB", peak/1e6)
	}
	t.Logf("%d visitors, peak memory %d MB", visitors, peak/1e6)
	d.Wait(t)
}

// visit lets 20 visitors come each second, each with a new connection over TLS. It returns how long their hits took,
// sorted. A visitor who is not answered fails the test.
func visit(t *testing.T, address string, duration time.Duration) []time.Duration {
	t.Helper()
	var mu sync.Mutex
	var took []time.Duration
	var visitors sync.WaitGroup
	ticks := time.NewTicker(time.Second / 20)
	defer ticks.Stop()
	end := time.After(duration)
	for i := 0; ; i++ {
		select {
		case <-end:
			visitors.Wait()
			slices.Sort(took)
			if len(took) == 0 {
				t.Fatal("there were no visitors")
			}
			return took
		case <-ticks.C:
		}
		visitors.Go(func() {
			began := time.Now()
			client := newClient()
			if err := hitOver(client, address, "visitor"); err != nil {
				t.Errorf("visitor %d: %v after %v", i, err, time.Since(began).Round(time.Millisecond))
				return
			}
			client.CloseIdleConnections()
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(began))
		})
	}
}

// newClient returns a client with connections of its own.
func newClient() *http.Client {
	return &http.Client{Timeout: rig.Deadline, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return rig.Dial(address)
		},
	}}
}

// hitOver makes a hit over TLS.
func hitOver(client *http.Client, address, key string) error {
	answer, err := client.Get("https://" + address + rig.Target(key))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != 200 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}
