//go:build unix

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// framework is a small application that saves flushes with a framework as it is
// installed, without raising a limit.
type framework struct {
	file, text string
	command    func(address string) []string
}

var frameworks = map[string]framework{
	// Above 2.5 MB: 400.
	"Django": {"app.py", `
from django.conf import settings
settings.configure(SECRET_KEY='x', ROOT_URLCONF='app', ALLOWED_HOSTS=['127.0.0.1'])

from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

@csrf_exempt
def save(request):
    if request.POST['secret'] != 's':
        return HttpResponse(status=403)
    with open('saved', 'a') as file:
        file.write(request.POST['json'] + '\n')
    return HttpResponse(status=204)

urlpatterns = [path('save', save)]
application = get_wsgi_application()
`, func(address string) []string { return []string{"gunicorn", "--bind", address, "app"} }},

	// Above 4 MB: 400 or 500, as the versions of Rack and Sinatra go.
	"Sinatra": {"config.ru", `
require 'sinatra'

post '/save' do
  halt 403 if params['secret'] != 's'
  File.write('saved', params['json'] + "\n", mode: 'a')
  204
end
run Sinatra::Application
`, func(address string) []string {
		return []string{"puma", "--environment", "production", "--bind", "tcp://" + address}
	}},

	// Above 8 MB: the form is empty, so there is no secret.
	"PHP": {"app.php", `<?php
if (($_POST['secret'] ?? '') !== 's') {
	http_response_code(403);
	exit;
}
file_put_contents('saved', $_POST['json'] . "\n", FILE_APPEND);
http_response_code(204);
`, func(address string) []string { return []string{"php", "-S", address, "app.php"} }},

	// Above 100 kB: 413.
	"Express": {"app.cjs", `
const express = require('express');
const [host, port] = process.argv[2].split(':');
express().post('/save', express.urlencoded(), (req, res) => {
	if (req.body.secret !== 's') return res.sendStatus(403);
	require('fs').appendFileSync('saved', req.body.json + '\n');
	res.sendStatus(204);
}).listen(port, host);
`, func(address string) []string { return []string{"node", "app.cjs", address} }},
}

// 200,000 keys arrive in an application whose framework has its default limit, whatever
// it says above that, and the daemon does not blame the secret.
func TestFrameworksAtTheirDefaults(t *testing.T) {
	for name, f := range frameworks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder, address := t.TempDir(), "127.0.0.1:"+rig.FreePort(t)
			if err := os.WriteFile(filepath.Join(folder, f.file), []byte(f.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(express, "node_modules"), filepath.Join(folder, "node_modules")); err != nil {
				t.Fatal(err)
			}
			startProgram(t, folder, address, nil, f.command(address)...)
			d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + address + "/save", "secret": "s"})
			keys, want := manyKeys()
			d.HitMany(t, keys)
			flushes := flushUntil(t, d, 5, func() bool { return maps.Equal(savedLines(t, folder), want) })
			t.Logf("everything has arrived after %d flushes; standard error is:\n%s", flushes, d.Stderr)
			if strings.Contains(d.Stderr.String(), "secret") {
				t.Error("the daemon blames the secret")
			}
			d.Hit(t, "later")
			want["later"] = 1
			d.Stop(t)
			if got := savedLines(t, folder); !maps.Equal(got, want) {
				t.Errorf("%d hits are saved, want %d", sum(got), sum(want))
			}
			hits.application.Add(sum(want))
		})
	}
}

// savedLines adds up the counts that an application has saved in a folder, a flush a line.
func savedLines(t *testing.T, folder string) map[string]int64 {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "saved"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	saved := make(map[string]int64)
	for line := range bytes.Lines(text) {
		var counts map[string]int64
		if err := json.Unmarshal(line, &counts); err != nil {
			t.Fatalf("%.100s: %v", line, err)
		}
		for key, n := range counts {
			saved[key] += n
		}
	}
	return saved
}

// flushUntil forces flushes, one after the other, until the condition holds, and returns
// their number. It fails the test after limit flushes.
func flushUntil(t *testing.T, d *rig.Daemon, limit int, holds func() bool) int {
	t.Helper()
	for n := 1; n <= limit; n++ {
		flushOnce(t, d)
		if holds() {
			return n
		}
	}
	t.Fatalf("not everything has arrived after %d flushes; the daemon's standard error is:\n%s", limit, d.Stderr)
	return 0
}

// flushOnce forces a flush and waits until it has ended, well or not.
func flushOnce(t *testing.T, d *rig.Daemon) {
	t.Helper()
	out, err := len(d.Stdout.String()), len(d.Stderr.String())
	d.Signal(t, syscall.SIGUSR2)
	for limit := time.Now().Add(rig.Deadline); ; <-time.After(10 * time.Millisecond) {
		if strings.Contains(d.Stdout.String()[out:], "--- flushed ---\n") ||
			strings.Contains("\n"+d.Stderr.String()[err:], "\n--- ") {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the flush does not end; standard error is:\n%s", d.Stderr)
		}
	}
}
