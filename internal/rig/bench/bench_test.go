//go:build unix

package bench

import (
	"cmp"
	"fmt"
	"math"
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

// loads are the loads of TestHits. Connection is the argument of load.lua.
var loads = []struct {
	name, connection string
	tls              bool
}{
	{"kept connections", "keep", false},
	{"a connection for each hit", "close", false},
	{"kept connections, TLS", "keep", true},
	{"a connection for each hit, TLS", "close", true},
}

// TestHits measures a hit on each server in turn, with 64 connections and 1,000
// keys.
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
		table := newTable(load.name, "CPU for a hit, µs", "in the kernel, µs", "hits a second",
			"p50, ms", "p99, ms", "peak memory, MB")
		servers := make(map[string]*server)
		for _, name := range names {
			servers[name], _ = start(t, name, folder, 1000)
		}
		for range rounds(t) {
			for _, name := range names {
				s := servers[name]
				cpu, kernel := s.CPU(t)
				hits, seconds, p50, p99 := s.load(t, load.connection, 3)
				cpuAfter, kernelAfter := s.CPU(t)
				peak := float64(s.Memory(t).Peak)
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

// maxJournal is how much CPU a hit with a journal may take, as a ratio to one without.
const maxJournal = 1.05

// TestJournal measures what a journal adds to a hit. Both daemons are loaded in turn, for a short time each, and a
// ratio is that of neighbours: so other work on the machine meets both. On a busy machine it takes more of
// them until their median is sure.
func TestJournal(t *testing.T) {
	table := newTable("kept connections, with a journal and without", "CPU for a hit, µs", "ratio")
	servers := make(map[string]*server)
	for _, name := range []string{"this", withJournal} {
		servers[name], _ = start(t, name, "", 1000)
		defer servers[name].end(t)
	}
	few, many := 5*rounds(t), 20*rounds(t)
	for i := 0; i < few || i < many && table.median(withJournal, 1) > maxJournal; i++ {
		cost := make(map[string]float64)
		for name, s := range servers { // in any order
			cpu, _ := s.CPU(t)
			hits, _, _, _ := s.load(t, "keep", 1)
			cpuAfter, _ := s.CPU(t)
			cost[name] = (cpuAfter - cpu).Seconds() * 1e6 / hits
		}
		for name := range servers {
			table.add(name, cost[name], cost[name]/cost["this"])
		}
	}
	table.print()
	if ratio := table.median(withJournal, 1); ratio > maxJournal {
		t.Errorf("a hit with a journal takes %.3f of the CPU of one without, want at most %v", ratio, maxJournal)
	}
}

// rounds returns how often each figure is measured. The table shows the medians.
func rounds(t *testing.T) int {
	t.Helper()
	return number(t, "ROUNDS", 3)
}

// number returns the number in an environment variable, or a default.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(variable), fmt.Sprint(otherwise)))
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number above 0", variable, os.Getenv(variable))
	}
	return n
}

// load loads the server with wrk for whole seconds. It returns the number of hits,
// the seconds that they took, and percentiles of the time for a hit in microseconds.
func (s *server) load(t *testing.T, connection string, duration int) (hits, seconds, p50, p99 float64) {
	t.Helper()
	wrk := exec.Command("wrk", "-t1", "-c64", fmt.Sprintf("-d%ds", duration), "-s", "load.lua",
		s.url, "--", s.prefix, connection)
	output, err := wrk.CombinedOutput()
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

// TestIdle measures the memory that a server takes for an idle connection over which
// a hit was made.
func TestIdle(t *testing.T) {
	const connections = 10000
	table := newTable(fmt.Sprintf("%d idle connections", connections), "memory for each, kB")
	for range rounds(t) {
		for _, name := range names {
			s, _ := start(t, name, "", connections+100)
			before := s.Memory(t).Now
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
			after := s.Memory(t).Now
			if took := time.Since(began); took > nodeKeepAlive {
				t.Errorf("%s: the connections took %v to open; Node closes idle ones after %v", name, took, nodeKeepAlive)
			}
			table.add(name, float64(after-before)/connections/1e3)
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

// TestStart measures the time from the start of a server to its first answer, and
// the memory that it takes half a second later.
func TestStart(t *testing.T) {
	table := newTable("start and rest", "first answer, ms", "memory at rest, MB")
	for range rounds(t) {
		for _, name := range names {
			s, took := start(t, name, "", 1000)
			<-time.After(500 * time.Millisecond)
			table.add(name, took.Seconds()*1e3, float64(s.Memory(t).Now)/1e6)
			s.end(t)
		}
	}
	table.print()
}

// table collects the figures of all rounds. It has a row for each server.
type table struct {
	title   string
	columns []string
	rows    map[string][][]float64 // the figures of a row by column and round
}

func newTable(title string, columns ...string) *table {
	return &table{title, columns, make(map[string][][]float64)}
}

// add adds the figures of one round to a row, one for each column. NaN stands for a
// figure that the server does not have.
func (t *table) add(row string, figures ...float64) {
	if t.rows[row] == nil {
		t.rows[row] = make([][]float64, len(t.columns))
	}
	for i, figure := range figures {
		t.rows[row][i] = append(t.rows[row][i], figure)
	}
}

// median returns the median of a figure's rounds.
func (t *table) median(row string, column int) float64 {
	figures := slices.Sorted(slices.Values(t.rows[row][column]))
	return figures[len(figures)/2]
}

// print prints the medians and, in parentheses, their ratios to the first row.
func (t *table) print() {
	fmt.Printf("\n| %s | %s |\n|%s\n", t.title, strings.Join(t.columns, " | "), strings.Repeat(" --- |", len(t.columns)+1))
	for _, name := range slices.Concat(names, []string{withJournal, withoutEndpoint, withJournalOnly, nginxHTTP2}) {
		if t.rows[name] == nil {
			continue
		}
		fmt.Printf("| %s |", name)
		for i := range t.columns {
			median, ratio := t.median(name, i), ""
			if r := median / t.median(names[0], i); !math.IsNaN(r) && !math.IsInf(r, 0) {
				ratio = fmt.Sprintf(" (%.2f)", r)
			}
			fmt.Printf(" %s%s |", short(median), ratio)
		}
		fmt.Println()
	}
}

// short formats a figure with three significant digits.
func short(x float64) string {
	switch {
	case math.IsNaN(x):
		return "none"
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}
