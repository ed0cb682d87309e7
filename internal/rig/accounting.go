package rig

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Memory is what a process has resident, in bytes.
type Memory struct {
	Now, Peak int64
}

// Memory reads what the process has resident from Linux's /proc.
func (p *Process) Memory(t testing.TB) (m Memory) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kilobytes); err == nil {
			m.Now = kilobytes << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			m.Peak = kilobytes << 10
		}
	}
	return m
}

// CPU returns the processor time that Linux has accounted to the process: all of
// it, and the part that the kernel used. Its unit is a hundredth of a second.
func (p *Process) CPU(t testing.TB) (all, kernel time.Duration) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// Fields 14 and 15 count. Field 2, in parentheses, is the name of the program,
	// which may contain spaces.
	fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ")")+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		t.Fatal(err)
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond
	return time.Duration(user+system) * tick, time.Duration(system) * tick
}
