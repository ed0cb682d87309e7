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
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "../../testdata/recipes/receiver")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	address := "127.0.0.1:" + rig.FreePort(t)
	output := rig.NewOutput()
	rig.Start(t, exec.Command(program, "-listen", address, "-secret", "s"), output, output)
	var id string
	post := func(form string) int {
		for limit := time.Now().Add(rig.Deadline); ; {
			request, err := http.NewRequest("POST", "http://"+address+"/save_hits", strings.NewReader(form))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if id != "" {
				request.Header.Set("Idempotency-Key", id)
			}
			answer, err := http.DefaultClient.Do(request)
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

	// A flush that comes again is accepted and not added again.
	for _, id = range []string{`"first"`, `"first"`, `"second"`} {
		if got := post("json=" + url.QueryEscape(`{"again":1}`) + "&secret=s"); got != 204 {
			t.Errorf("status %d, want 204", got)
		}
	}
	output.WaitLine(t, 0, `application: "again", 2 in all`)
	if strings.Contains(output.String(), "3 in all") {
		t.Error("a flush was added again")
	}

	d := start(t, map[string]any{"endpoint": "http://" + address + "/save_hits", "secret": "s"})
	for _, total := range []string{`application: "a", 2 in all`, `application: "a", 4 in all`} {
		d.hit(t, "key=a", "key=a")
		d.Signal(t, syscall.SIGUSR2)
		output.WaitLine(t, 0, total)
	}
}
