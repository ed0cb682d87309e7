//go:build unix

package main

import (
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// TestExampleApplication runs the application that the README has people start
// their own from.
func TestExampleApplication(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "application")
	build := exec.Command("go", "build", "-o", program, "../../testdata/recipes/receiver")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	address := "127.0.0.1:" + rig.FreePort(t)
	output := rig.NewOutput()
	rig.Start(t, exec.Command(program, "-listen", address, "-secret", "s"), output, output)
	post := func(form string) int {
		for limit := time.Now().Add(rig.Deadline); ; {
			answer, err := http.Post("http://"+address+"/save_hits",
				"application/x-www-form-urlencoded", strings.NewReader(form))
			if err == nil {
				answer.Body.Close()
				return answer.StatusCode
			}
			if time.Now().After(limit) {
				t.Fatal(err)
			}
		}
	}
	for form, want := range map[string]int{
		"json=" + url.QueryEscape(`{"a":1}`) + "&secret=x": 403,
		"json=" + url.QueryEscape(`{"a":1}`):               403,
		"json=1&secret=s":                                  400,
		"json=%zz&secret=s":                                400,
		"secret=s&x=" + strings.Repeat("x", 65<<20):        413,
		"json=%7B%7D&secret=s":                             204,
	} {
		if got := post(form); got != want {
			t.Errorf("%.60s: status %d, want %d", form, got, want)
		}
	}

	d := start(t, map[string]any{"endpoint": "http://" + address + "/save_hits", "secret": "s"})
	for _, total := range []string{`application: "a", 2 in all`, `application: "a", 4 in all`} {
		d.hit(t, "key=a", "key=a")
		d.Signal(t, syscall.SIGUSR2)
		output.WaitLine(t, 0, total)
	}
}
