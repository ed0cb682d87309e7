//go:build unix

// Package bench measures the daemon beside the original, an Express handler and
// nginx in one run. make bench and make bench-flush run it. The figures are only
// meaningful on a machine that does nothing else.
package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// The folders in which npm installed the original and Express. The make targets set
// ORIGINAL and EXPRESS.
var (
	original = filepath.Join(os.Getenv("ORIGINAL"), "node_modules", "pixel-ping")
	express  = filepath.Join(os.Getenv("EXPRESS"), "node_modules")
)

// TestMain prints what is measured, and on which machine.
func TestMain(m *testing.M) {
	rig.NeedTarget("make bench and make bench-flush")
	if runtime.GOOS != "linux" {
		fmt.Println("FAIL: CPU and memory are read from /proc, which needs Linux.")
		os.Exit(1)
	}
	for _, needed := range []string{rig.Binary, original, express} {
		if _, err := os.Stat(needed); err != nil {
			fmt.Println("FAIL: run make bench, which installs what is missing:", err)
			os.Exit(1)
		}
	}
	fmt.Printf("%s, %d cores (%s), Linux %s, %s\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(),
		line("sh", "-c", "sed -n 's/^model name.*: //p' /proc/cpuinfo"), line("uname", "-r"), runtime.Version())
	fmt.Printf("%s; %s on Node %s\n", line(rig.Binary, "--version"),
		line("node", filepath.Join(original, "bin", "pixel-ping"), "--version"), line("node", "--version"))
	os.Exit(m.Run())
}

// line runs a command and returns the first line of its output.
func line(name string, args ...string) string {
	output, _ := exec.Command(name, args...).CombinedOutput()
	first, _, _ := strings.Cut(string(output), "\n")
	if first == "" {
		fmt.Printf("FAIL: %s has no output; is it installed?\n", name)
		os.Exit(1)
	}
	return first
}
