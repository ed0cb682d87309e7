package bench

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// The loads of TestHits: what wrk is told, each for a while and by turns.
var loads = []struct {
	name, connection string
	tls              bool
}{
	{"kept connections", "keep", false},
	{"a connection for each hit", "close", false},
	{"kept connections, TLS", "keep", true},
	{"a connection for each hit, TLS", "close", true},
}

// TestHits loads each server by turns, several rounds over, with 64 connections
// and 1,000 keys.
func TestHits(t *testing.T) {
	fmt.Printf("Express %s on the same Node; %s; %s\n",
		line("node", "-p", "require('"+express+"/express/package.json').version"), line("nginx", "-v"), line("wrk", "-v"))
	certificate := t.TempDir()
	rig.WriteCertificate(t, certificate)
	for _, load := range loads {
		folder := ""
		if load.tls {
			folder = certificate
		}
		table := newTable(load.name, "CPU for a hit, µs", "in the kernel, µs", "hits a second", "p50, ms", "p99, ms", "peak memory, MB")
		servers := make(map[string]*server)
		for _, name := range names {
			servers[name], _ = start(t, name, folder, 1000)
		}
		for range rounds(t) {
			for _, name := range names {
				s := servers[name]
				cpu, kernel := s.cpu(t)
				hits, seconds, p50, p99 := s.load(t, load.connection)
				cpuAfter, kernelAfter := s.cpu(t)
				_, peak := s.memory(t)
				table.add(name, (cpuAfter-cpu).Seconds()*1e6/hits, (kernelAfter-kernel).Seconds()*1e6/hits,
					hits/seconds, p50/1e3, p99/1e3, peak/1e6)
			}
		}
		for _, s := range servers {
			s.end(t)
		}
		table.print()
	}
}

// rounds is how often each measurement is made. The medians count.
func rounds(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("ROUNDS"), "3"))
	if err != nil || n < 1 {
		t.Fatalf("ROUNDS is not a number above 0: %q", os.Getenv("ROUNDS"))
	}
	return n
}

// load has wrk load the server, and returns what it has counted; the percentiles
// are in microseconds.
func (s *server) load(t *testing.T, connection string) (hits, seconds, p50, p99 float64) {
	t.Helper()
	output, err := exec.Command("wrk", "-t1", "-c64", "-d3s", "-s", "load.lua", s.url, "--", s.prefix, connection).CombinedOutput()
	if err != nil {
		t.Fatalf("wrk: %v: %s", err, output)
	}
	var errors float64
	_, result, _ := strings.Cut(string(output), "RESULT ")
	if _, err := fmt.Sscan(result, &hits, &seconds, &p50, &p99, &errors); err != nil || hits == 0 || errors > hits/1000 {
		t.Fatalf("wrk: %v, %v errors: %s", err, errors, output)
	}
	return hits, seconds / 1e6, p50, p99
}

// TestIdle opens many connections to each server and makes one hit over each,
// and looks at what they cost while they are kept.
func TestIdle(t *testing.T) {
	const connections = 10000
	table := newTable(fmt.Sprintf("%d idle connections", connections), "memory for each, kB")
	for range rounds(t) {
		for _, name := range names {
			s, _ := start(t, name, "", connections+100)
			before, _ := s.memory(t)
			began := time.Now()
			open := make([]net.Conn, connections)
			var wg sync.WaitGroup
			for worker := range 32 {
				wg.Go(func() {
					for i := worker; i < connections; i += 32 {
						conn, err := s.dial()
						if err == nil {
							open[i] = conn
							err = s.hit(conn, "idle")
						}
						if err != nil {
							t.Errorf("%s: connection %d: %v", name, i, err)
							return
						}
					}
				})
			}
			wg.Wait()
			after, _ := s.memory(t)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("%s: the connections took %v to open; Node closes those that idle for 5 s", name, took)
			}
			table.add(name, (after-before)/connections/1e3)
			for _, conn := range open {
				if conn != nil {
					conn.Close()
				}
			}
			s.end(t)
			if t.Failed() {
				return
			}
		}
	}
	table.print()
}

// TestStart starts each server some times, waits for its first answer, and
// looks at what it takes when it rests.
func TestStart(t *testing.T) {
	table := newTable("start and rest", "first answer, ms", "memory at rest, MB")
	for range rounds(t) {
		for _, name := range names {
			s, took := start(t, name, "", 1000)
			<-time.After(500 * time.Millisecond)
			now, _ := s.memory(t)
			table.add(name, took.Seconds()*1e3, now/1e6)
			s.end(t)
		}
	}
	table.print()
}

// A table has a row for each server and collects the figures of each round.
type table struct {
	title   string
	columns []string
	rows    map[string][][]float64 // by column, by round
}

func newTable(title string, columns ...string) *table {
	return &table{title, columns, make(map[string][][]float64)}
}

// add adds the figures of one round, one for each column.
func (t *table) add(row string, figures ...float64) {
	if t.rows[row] == nil {
		t.rows[row] = make([][]float64, len(t.columns))
	}
	for i, figure := range figures {
		t.rows[row][i] = append(t.rows[row][i], figure)
	}
}

// median returns the figure in the middle of a row's rounds.
func (t *table) median(row string, column int) float64 {
	figures := slices.Sorted(slices.Values(t.rows[row][column]))
	return figures[len(figures)/2]
}

// print prints the medians and, in parentheses, their ratios to the first row's.
func (t *table) print() {
	fmt.Printf("\n| %s | %s |\n|%s\n", t.title, strings.Join(t.columns, " | "), strings.Repeat(" --- |", len(t.columns)+1))
	for _, name := range names {
		if t.rows[name] == nil {
			continue
		}
		fmt.Printf("| %s |", name)
		for i := range t.columns {
			median := t.median(name, i)
			fmt.Printf(" %s (%.2f) |", short(median), median/t.median(names[0], i))
		}
		fmt.Println()
	}
}

// short writes a figure with three digits that say something.
func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}
