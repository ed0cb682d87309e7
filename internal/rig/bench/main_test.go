// Package bench measures the daemon beside the original, an Express handler and
// nginx, all in one run. Its tests run only when they are asked for, by make
// bench and make bench-flush: they need these, wrk, and a machine that is left
// alone.
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

// The folders in which npm has installed the original and Express. The make
// targets set them.
var (
	original = filepath.Join(os.Getenv("ORIGINAL"), "node_modules", "pixel-ping")
	express  = filepath.Join(os.Getenv("EXPRESS"), "node_modules")
)

// TestMain says what is measured, and on what.
func TestMain(m *testing.M) {
	rig.NeedTarget("make bench and make bench-flush")
	if runtime.GOOS != "linux" {
		fmt.Println("FAIL: the accounting of processes is read from Linux's /proc.")
		os.Exit(1)
	}
	for _, needed := range []string{rig.Binary, original, express} {
		if _, err := os.Stat(needed); err != nil {
			fmt.Println("FAIL: run make bench, which says where the parts are:", err)
			os.Exit(1)
		}
	}
	fmt.Printf("%s, %d cores (%s), Linux %s, %s\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(),
		line("sh", "-c", "sed -n 's/^model name.*: //p' /proc/cpuinfo"), line("uname", "-r"), runtime.Version())
	fmt.Printf("%s; %s on Node %s\n", line(rig.Binary, "--version"),
		line("node", filepath.Join(original, "bin", "pixel-ping"), "--version"), line("node", "--version"))
	os.Exit(m.Run())
}

// line runs a command and returns the first line of what it says, wherever.
func line(name string, args ...string) string {
	output, _ := exec.Command(name, args...).CombinedOutput()
	first, _, _ := strings.Cut(string(output), "\n")
	if first == "" {
		fmt.Printf("FAIL: %s says nothing; is it there?\n", name)
		os.Exit(1)
	}
	return first
}
