//go:build unix

package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// visited are the servers whose visitors are measured.
var visited = []string{"this", "original", "nginx"}

// protocols are the protocols of visitors, as TLS names them, and as people do.
var protocols = []struct{ offer, name string }{{"h2", "HTTP/2"}, {"http/1.1", "HTTP/1.1"}}

// visitor is a client of its own: a TLS connection over which it has made one hit.
type visitor struct {
	*tls.Conn
	transport *http.Transport // reads the connection if it is HTTP/2
}

// visit connects with a TLS configuration, makes a hit and keeps the connection.
func (s *server) visit(config *tls.Config) (*visitor, error) {
	conn, err := rig.Dial(s.url[len("https://"):])
	if err != nil {
		return nil, err
	}
	v := &visitor{Conn: tls.Client(conn, config)}
	v.SetDeadline(time.Now().Add(rig.Deadline))
	if err = v.Handshake(); err == nil {
		err = v.hit(s)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	v.SetDeadline(time.Time{})
	return v, nil
}

// hit makes one hit with the protocol of the connection.
func (v *visitor) hit(s *server) error {
	if v.ConnectionState().NegotiatedProtocol != "h2" {
		return s.hit(v, "visitor")
	}
	v.transport = &http.Transport{
		ForceAttemptHTTP2: true,
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return v.Conn, nil },
	}
	client := http.Client{Transport: v.transport}
	answer, err := client.Get(s.url + s.prefix + "visitor")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != 200 || answer.ProtoMajor != 2 {
		return fmt.Errorf("%s, status %d", answer.Proto, answer.StatusCode)
	}
	return nil
}

// visitMany makes visits with 16 workers until there are n or the time is up. Each
// worker calls configure once, and then visits one after the other with that
// configuration. Keep gets each visitor.
func (s *server) visitMany(t *testing.T, n int, limit time.Duration, configure func() *tls.Config,
	keep func(*visitor)) {
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
	n := number(t, "VISITORS", 10000) / 5
	for _, protocol := range protocols {
		table := newTable("CPU for a new visitor over TLS with "+protocol.name,
			"full handshake, µs", "of it the post-quantum key exchange, µs", "resumed session, µs")
		servers := make(map[string]*server)
		for _, name := range visited {
			servers[name], _ = start(t, name, certificate, 1000)
			if !servers[name].offers(t, protocol.offer) {
				table.missing[name] = "no " + protocol.name
				servers[name].end(t)
				delete(servers, name)
			}
		}
		for range rounds(t) {
			for _, name := range visited {
				if s := servers[name]; s != nil {
					table.add(name, s.newVisitors(t, protocol.offer, n)...)
				}
			}
		}
		for _, s := range servers {
			s.end(t)
		}
		table.print()
	}
}

// offers reports whether the server offers a protocol.
func (s *server) offers(t *testing.T, protocol string) bool {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol, "http/1.1"}}
	v, err := s.visit(config)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	return v.ConnectionState().NegotiatedProtocol == protocol
}

// newVisitors measures n visitors of each kind, and returns the figures of
// TestVisitors.
func (s *server) newVisitors(t *testing.T, protocol string, n int) []float64 {
	t.Helper()
	full := func() *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
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
	var quantum, resumed atomic.Int64
	measure := func(configure func() *tls.Config) float64 {
		t.Helper()
		quantum.Store(0)
		resumed.Store(0)
		configs := make(chan *tls.Config, 16)
		for range cap(configs) {
			configs <- configure()
		}
		before, _ := s.CPU(t)
		s.visitMany(t, n, time.Minute, func() *tls.Config { return <-configs }, func(v *visitor) {
			state := v.ConnectionState()
			if state.CurveID == tls.X25519MLKEM768 {
				quantum.Add(1)
			}
			if state.DidResume {
				resumed.Add(1)
			}
			v.Close()
		})
		after, _ := s.CPU(t)
		return (after - before).Seconds() * 1e6 / float64(n)
	}
	all := measure(full)
	postQuantum := math.NaN()
	if quantum.Load() > 0 {
		postQuantum = all - measure(classic)
	}
	again := measure(resuming)
	if resumed.Load() != int64(n) {
		t.Logf("%d of %d sessions were resumed", resumed.Load(), n)
		again = math.NaN()
	}
	return []float64{all, postQuantum, again}
}

// TestIdleVisitors measures what visitors cost who have made one hit over TLS and
// keep their connection. The original closes it after some 5 s, so fewer visitors
// fit: as many as come in 4 s. IDLE (60s) is the time for which the others stay.
func TestIdleVisitors(t *testing.T) {
	certificate := t.TempDir()
	rig.WriteCertificate(t, certificate)
	n := number(t, "VISITORS", 10000)
	rig.RaiseDescriptors(t, n+n/8+300)
	stay, err := time.ParseDuration(cmp.Or(os.Getenv("IDLE"), "60s"))
	if err != nil {
		t.Fatalf("IDLE: %v", err)
	}
	for _, protocol := range protocols {
		table := newTable("Idle visitors over TLS with "+protocol.name, "visitors", "memory for each, kB",
			fmt.Sprintf("memory for each after %v, kB", stay), "connected then", "peak memory, MB",
			"cores that they keep busy", "CPU for a hit beside them, to alone")
		for _, name := range visited {
			// nginx closes idle connections when fewer than a sixteenth of its limit are free.
			s, _ := start(t, name, certificate, n+n/8+200)
			switch {
			case !s.offers(t, protocol.offer):
				table.missing[name] = "no " + protocol.name
			case name == "original":
				table.add(name, s.idleVisitors(t, protocol.offer, n, 4*time.Second, 1, 0)...)
			default:
				table.add(name, s.idleVisitors(t, protocol.offer, n, time.Minute, 10, stay)...)
			}
			s.end(t)
		}
		table.print()
	}
}

// idleVisitors lets n visitors come, or as many as come within a limit, measures hits
// for some seconds without them and with them, and returns the figures of
// TestIdleVisitors. If stay is 0, it does not measure what needs them to stay.
func (s *server) idleVisitors(t *testing.T, protocol string, n int, limit time.Duration, seconds int,
	stay time.Duration) []float64 {
	t.Helper()
	memory, descriptors := s.Memory(t).Now, s.descriptors(t)
	hit := func() float64 {
		before, _ := s.CPU(t)
		hits, _, _, _ := s.load(t, "keep", seconds)
		after, _ := s.CPU(t)
		return (after - before).Seconds() / hits
	}
	hit() // Node compiles its code while it warms up
	alone := hit()

	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}
	var mu sync.Mutex
	var visitors []*visitor
	s.visitMany(t, n, limit, func() *tls.Config { return config }, func(v *visitor) {
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
	soon, beside := each(), hit()/alone

	later, connected, busy := math.NaN(), math.NaN(), math.NaN()
	if stay > 0 {
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
