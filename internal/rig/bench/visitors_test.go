//go:build unix

package bench

import (
	"crypto/tls"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// defaultVisitors are as many as stay with the default of maxconnections, beside the
// connections of a load.
const defaultVisitors = 4400

// visited are the servers whose visitors are measured.
var visited = []string{"this", "original", "nginx"}

// visit connects with a TLS configuration, makes a hit and keeps the connection.
func (s *server) visit(config *tls.Config) (*tls.Conn, error) {
	raw, err := rig.Dial(s.url[len("https://"):])
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, config)
	conn.SetDeadline(time.Now().Add(rig.Deadline))
	if err := s.hit(conn, "visitor"); err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return conn, nil
}

// visitMany makes visits with 16 workers until there are n or the time is up. Each
// worker calls configure once, and then visits one after the other with that
// configuration. Keep gets each visitor.
func (s *server) visitMany(t *testing.T, n int, limit time.Duration, configure func() *tls.Config,
	keep func(*tls.Conn)) {
	t.Helper()
	var next atomic.Int64
	var workers sync.WaitGroup
	end := time.Now().Add(limit)
	for range 16 {
		workers.Go(func() {
			config := configure()
			for next.Add(1) <= int64(n) && time.Now().Before(end) {
				v, err := s.visit(config)
				if err != nil {
					t.Errorf("visitor: %v", err)
					return
				}
				keep(v)
			}
		})
	}
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// TestVisitors measures the CPU for a new visitor: the TCP connection, the TLS
// handshake, one hit, and the end of the connection.
func TestVisitors(t *testing.T) {
	certificate := t.TempDir()
	rig.WriteCertificate(t, certificate)
	n := number(t, "VISITORS", defaultVisitors) / 4
	table := newTable("CPU for a new visitor over TLS", "full handshake, µs", "the same with X25519 alone, µs",
		"resumed session, µs")
	servers := make(map[string]*server)
	for _, name := range visited {
		servers[name], _ = start(t, name, certificate, 1000)
		defer servers[name].end(t)
	}
	for range rounds(t) {
		for _, name := range visited {
			table.add(name, servers[name].newVisitors(t, n)...)
		}
	}
	table.print()
}

// newVisitors measures n visitors of each kind, and returns the figures of
// TestVisitors.
func (s *server) newVisitors(t *testing.T, n int) []float64 {
	t.Helper()
	full := func() *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	}
	classic := func() *tls.Config {
		config := full()
		config.CurvePreferences = []tls.CurveID{tls.X25519}
		return config
	}
	resuming := func() *tls.Config {
		config := full()
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		// The first visit brings the session for the others. It is not measured.
		v, err := s.visit(config)
		if err != nil {
			t.Error(err)
			return config
		}
		v.Close()
		return config
	}
	var resumed atomic.Int64
	measure := func(configure func() *tls.Config) float64 {
		t.Helper()
		resumed.Store(0)
		configs := make(chan *tls.Config, 16)
		for range cap(configs) {
			configs <- configure()
		}
		before, _ := s.CPU(t)
		s.visitMany(t, n, time.Minute, func() *tls.Config { return <-configs }, func(v *tls.Conn) {
			if v.ConnectionState().DidResume {
				resumed.Add(1)
			}
			v.Close()
		})
		after, _ := s.CPU(t)
		return (after - before).Seconds() * 1e6 / float64(n)
	}
	all, x25519 := measure(full), measure(classic)
	again := measure(resuming)
	if resumed.Load() != int64(n) {
		t.Logf("%d of %d sessions were resumed", resumed.Load(), n)
		again = math.NaN()
	}
	return []float64{all, x25519, again}
}

// idleLimits are what visitors may cost this server who have made a hit over TLS and keep
// their connection. They hold on a machine that does nothing else.
var idleLimits = map[string]float64{
	soonColumn: 29, laterColumn: 27, busyColumn: 0.02, besideColumn: 1.2,
}

// The columns of TestIdleVisitors that have a limit.
const (
	soonColumn   = "memory for each after two seconds, kB"
	laterColumn  = "memory for each after two minutes, kB"
	busyColumn   = "cores that they keep busy"
	besideColumn = "CPU for a hit beside them, to alone"
)

// TestIdleVisitors measures what visitors cost who have made one hit over TLS and keep
// their connection for two minutes, with another hit in the middle, and compares it with
// idleLimits. The settings are the defaults. The original closes a connection after some
// 5 s, so fewer visitors fit: as many as come in 2 s.
func TestIdleVisitors(t *testing.T) {
	certificate := t.TempDir()
	rig.WriteCertificate(t, certificate)
	n := number(t, "VISITORS", defaultVisitors)
	rig.RaiseDescriptors(t, n+n/8+300)
	columns := []string{"visitors", soonColumn, laterColumn, "connected then", "peak memory, MB", busyColumn, besideColumn}
	table := newTable("Idle visitors over TLS", columns...)
	for range rounds(t) {
		for _, name := range visited {
			// nginx closes idle connections when fewer than a sixteenth of its limit are free.
			s, _ := start(t, name, certificate, n+n/8+200)
			if name == "original" {
				table.add(name, s.idleVisitors(t, n, 2*time.Second, 1, 0)...)
			} else {
				table.add(name, s.idleVisitors(t, n, time.Minute, 10, 2*time.Minute)...)
			}
			s.end(t)
		}
	}
	table.print()
	for i, column := range columns {
		if limit, ok := idleLimits[column]; ok && table.median("this", i) > limit {
			t.Errorf("%s: %.3g, want at most %v", column, table.median("this", i), limit)
		}
	}
	if connected := table.median("this", 3); connected < float64(n) {
		t.Errorf("%v of %d visitors are connected after two minutes", connected, n)
	}
}

// idleVisitors lets n visitors come, or as many as come within a limit, measures hits
// for some seconds without them and with them, and returns the figures of
// TestIdleVisitors. If stay is 0, it does not measure what needs them to stay.
func (s *server) idleVisitors(t *testing.T, n int, limit time.Duration, seconds int, stay time.Duration) []float64 {
	t.Helper()
	hit := func() float64 {
		before, _ := s.CPU(t)
		hits, _, _, _ := s.load(t, "keep", seconds)
		after, _ := s.CPU(t)
		return (after - before).Seconds() / hits
	}
	hit() // Node compiles its code while it warms up
	alone := hit()
	<-time.After(time.Second) // the connections of the hits are closed
	memory, descriptors := s.Memory(t).Now, s.descriptors(t)

	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}
	var mu sync.Mutex
	var visitors []*tls.Conn
	s.visitMany(t, n, limit, func() *tls.Config { return config }, func(v *tls.Conn) {
		mu.Lock()
		defer mu.Unlock()
		visitors = append(visitors, v)
	})
	defer func() {
		for _, v := range visitors {
			v.Close()
		}
	}()
	came := time.Now()
	each := func() float64 { return float64(s.Memory(t).Now-memory) / float64(len(visitors)) / 1e3 }
	<-time.After(time.Until(came.Add(2 * time.Second)))
	soon, beside := each(), hit()/alone

	later, connected, busy := math.NaN(), math.NaN(), math.NaN()
	if stay > 0 {
		<-time.After(time.Until(came.Add(stay / 2)))
		for _, v := range visitors { // or the connections would be closed
			if err := s.hit(v, "visitor"); err != nil {
				t.Errorf("another hit of a visitor: %v", err)
			}
		}
		began := time.Now()
		before, _ := s.CPU(t)
		<-time.After(time.Until(came.Add(stay)))
		after, _ := s.CPU(t)
		later, connected = each(), float64(s.descriptors(t)-descriptors)
		busy = (after - before).Seconds() / time.Since(began).Seconds()
	}
	peak := float64(s.Memory(t).Peak) / 1e6
	return []float64{float64(len(visitors)), soon, later, connected, peak, busy, beside}
}

// descriptors returns how many descriptors the server has open.
func (s *server) descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
