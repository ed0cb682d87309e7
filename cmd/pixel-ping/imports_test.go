package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The way of a hit shows in the imports: each step knows the next one at the
// most, and a request cannot reach the network.
func TestImports(t *testing.T) {
	const module = "pixel-ping/"
	const form = `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`
	list, err := exec.Command("go", "list", "-buildvcs=false", "-f", form, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{
		"cmd/pixel-ping": {"arguments", "cert", "config", "endpoint", "flush", "health", "hits", "journal", "listen",
			"logwriter", "memory", "metrics", "pixel", "server", "signals", "stats", "systemd", "version"},
		"internal/arguments": {"version"},
		"internal/cert":      {"arguments"},
		"internal/config":    {"node"},
		"internal/endpoint":  {"hits", "post"},
		"internal/flush":     {"endpoint", "hits", "logwriter", "post", "stats"},
		"internal/health":    nil,
		"internal/hits":      {"journal", "node", "stats"},
		"internal/journal":   nil,
		"internal/listen":    nil,
		"internal/logwriter": nil,
		"internal/memory":    nil,
		"internal/metrics":   {"listen", "stats"},
		"internal/node":      nil,
		"internal/pixel":     {"node"},
		"internal/post":      {"cert", "hits", "node"},
		"internal/server":    {"stats"},
		"internal/signals":   nil,
		"internal/stats":     nil,
		"internal/systemd":   nil,
		"internal/version":   nil,

		"internal/packages/manual": nil,

		"internal/rig":             nil,
		"internal/rig/bench":       nil,
		"internal/rig/conformance": nil,
		"internal/rig/e2e":         nil,
		"internal/rig/packages":    nil,
		"internal/rig/run":         nil,
		"internal/rig/soak":        nil,
	}
	for line := range strings.Lines(string(list)) {
		imports := strings.Fields(strings.ReplaceAll(line, module, ""))
		var got []string
		for _, path := range imports[1:] {
			switch name, internal := strings.CutPrefix(path, "internal/"); {
			case internal && strings.Contains(line, module+path):
				got = append(got, name)
			case strings.Contains(strings.Split(path, "/")[0], "."):
				t.Errorf("%s imports %s, which is not in the standard library", imports[0], path)
			}
		}
		if !slices.Equal(got, want[imports[0]]) {
			t.Errorf("%s imports %q, want %q", imports[0], got, want[imports[0]])
		}
		delete(want, imports[0])
	}
	for name := range want {
		t.Errorf("there is no %s", name)
	}
}
