//go:build unix

package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// The page of the receiver counts its views and the presses of its button, and shows
// the totals as they arrive. It shows a key that is HTML as text.
func TestReceiverShowsWhatArrives(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "receiver")
	run(t, "", nil, "go", "build", "-buildvcs=false", "-o", program, recipe+"receiver")
	address, output := "127.0.0.1:"+rig.FreePort(t), rig.NewOutput()
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + address + "/save_hits", "secret": "s"})
	pixel := "http://" + d.Address + "/pixel.gif"
	receiver := rig.Start(t, exec.Command(program, "-listen", address, "-secret", "s", "-pixel", pixel), output, output)
	receiver.WaitListening(t, address)

	at := startBrowser(t, "").newTab(t)
	at.open(t, "http://"+address+"/")
	// shows waits until a script has this value. It flushes meanwhile, since the image
	// of a press may load later than the flush before.
	shows := func(script, want string) {
		t.Helper()
		var got string
		for limit := time.Now().Add(rig.Deadline); ; <-time.After(100 * time.Millisecond) {
			d.Signal(t, syscall.SIGUSR2)
			at.eval(t, script, &got)
			if got == want {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("%s is %q, want %q", script, got, want)
			}
		}
	}
	const table = `[...totals.rows].map((row) => row.innerText.replace("\t", ": ")).join("; ")`
	shows(table, "page: 1")
	// The text is read in the task of the press, before a flush can clear it.
	var says string
	at.eval(t, `document.querySelector("button").click(); pressed.textContent`, &says)
	if want := "Counted. The next flush comes within five seconds."; says != want {
		t.Errorf("after a press the page says %q, want %q", says, want)
	}
	shows(table, "button: 1; page: 1")
	at.click(t, "button")
	at.click(t, "button")
	shows(table, "button: 3; page: 1")
	d.Hit(t, "<img src=x onerror=alert(1)>")
	shows(table, "button: 3; <img src=x onerror=alert(1)>: 1; page: 1")
	shows(`String(document.querySelectorAll("img").length)`, "1")
	shows(`String([...plot.children].some((bar) => bar.offsetHeight > 0 && bar.title.startsWith("1 hit at ")))`, "true")
	shows(`last.textContent.replace(/\d\d/g, "00")`, "Last flush: 0 hits at 00:00:00")
	shows("pressed.textContent", "")
	hits.browser.Add(4)
}

// The page promises a flush within five seconds, which is the interval of make run.
func TestReceiverPromisesTheIntervalOfMakeRun(t *testing.T) {
	text, err := os.ReadFile("../../../testdata/recipes/receiver/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var settings struct{ Interval int }
	if err := json.Unmarshal(text, &settings); err != nil || settings.Interval != 5 {
		t.Errorf("the interval is %d, error %v, want 5, as the page says", settings.Interval, err)
	}
}
