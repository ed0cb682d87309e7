//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// testFirefox does in a Firefox what the other tests do in Chromium, where browsers can
// differ: text cut inside an emoji, clicks with other buttons and keys, and the end of a
// page, with beacons and with beacon.enabled=false.
func testFirefox(t *testing.T, w *world) {
	for _, beacons := range []bool{true, false} {
		t.Run(fmt.Sprintf("beacon.enabled=%v", beacons), func(t *testing.T) {
			t.Parallel()
			s, f := w.newSite(t), startFirefox(t, beacons)
			f.open(t, s.pages+"/page.html")
			f.open(t, s.pages+"/events.html")
			want := map[string]int64{"article-42": 1}
			s.check(t, want)

			var has bool
			f.eval(t, `return "sendBeacon" in navigator`, &has)
			if has != beacons {
				t.Errorf("the page has beacons: %v", has)
			}
			f.eval(t, `track("👍".slice(0, 1) + " cut 👍"); trackLeaving("cut " + "👍".slice(1))`, nil)
			want["\ufffd cut 👍"], want["cut \ufffd"] = 1, 1
			s.check(t, want)

			f.eval(t, stay, nil)
			const left, middle, right, control = 0, 1, 2, "\ue009"
			f.click(t, "a", right, "")
			s.check(t, want)
			for _, click := range []struct {
				button int
				key    string
			}{{left, ""}, {left, control}, {middle, ""}} {
				f.click(t, "a", click.button, click.key)
				want["to another article"]++
				s.check(t, want)
			}

			f.open(t, s.pages+"/view.html")
			want["left article-42"], want[s.pages+"/view.html"] = 1, 1
			s.check(t, want)
		})
	}
}

// firefox is a Firefox without a window. The test controls it with the protocol
// Marionette.
type firefox struct {
	conn net.Conn
	read *bufio.Reader
	last int // id of a command
}

// startFirefox starts a Firefox with a new profile. It resolves every host name to
// 127.0.0.1, and it accepts any certificate.
func startFirefox(t *testing.T, beacons bool) *firefox {
	t.Helper()
	profile := t.TempDir()
	prefs := fmt.Sprintf(`user_pref("marionette.port", 0);
user_pref("network.dns.forceResolve", "127.0.0.1");
user_pref("beacon.enabled", %v);
`, beacons)
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", profile)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	output := rig.NewOutput()
	process := rig.StartGroup(t, cmd, output, output)
	var port string
	for limit := time.Now().Add(rig.Deadline); port == ""; <-time.After(10 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(profile, "MarionetteActivePort"))
		if port = strings.TrimSpace(string(text)); time.Now().After(limit) {
			t.Fatalf("Firefox does not listen; its output is:\n%s", output)
		}
	}
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	f := &firefox{conn: conn, read: bufio.NewReader(conn)}
	t.Cleanup(func() {
		f.call(t, "Marionette:Quit", map[string]any{"flags": []string{"eForceQuit"}}, nil)
		process.Wait(t)
		conn.Close()
	})
	f.message(t) // the greeting
	f.call(t, "WebDriver:NewSession", map[string]any{"acceptInsecureCerts": true}, nil)
	return f
}

// message reads a message: its length, a colon, and JSON.
func (f *firefox) message(t *testing.T) []byte {
	t.Helper()
	f.conn.SetReadDeadline(time.Now().Add(rig.Deadline))
	var length int
	if _, err := fmt.Fscanf(f.read, "%d:", &length); err != nil {
		t.Fatalf("Firefox does not answer: %v", err)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(f.read, text); err != nil {
		t.Fatal(err)
	}
	return text
}

// call sends a command and waits for the answer. It decodes the value of the answer into
// value, if that is not nil.
func (f *firefox) call(t *testing.T, command string, params map[string]any, value any) {
	t.Helper()
	f.last++
	text, err := json.Marshal([]any{0, f.last, command, params})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(f.conn, "%d:%s", len(text), text); err != nil {
		t.Fatal(err)
	}
	var failure *struct{ Message string }
	result := struct{ Value any }{value}
	text = f.message(t)
	if err := json.Unmarshal(text, &[]any{new(int), new(int), &failure, &result}); err != nil {
		t.Fatalf("%s: %s: %v", command, text, err)
	}
	if failure != nil {
		t.Fatalf("%s: %s", command, failure.Message)
	}
}

// open opens an address and waits until the page and its images are loaded.
func (f *firefox) open(t *testing.T, address string) {
	t.Helper()
	f.call(t, "WebDriver:Navigate", map[string]any{"url": address}, nil)
}

// eval runs the body of a function in the page.
func (f *firefox) eval(t *testing.T, script string, value any) {
	t.Helper()
	f.call(t, "WebDriver:ExecuteScript", map[string]any{"script": script, "args": []any{}}, value)
}

// click clicks with a button of the mouse on the element that a selector selects, while
// a key is held, if there is one.
func (f *firefox) click(t *testing.T, selector string, button int, key string) {
	t.Helper()
	var element map[string]string
	f.call(t, "WebDriver:FindElement", map[string]any{"using": "css selector", "value": selector}, &element)
	type action = map[string]any
	mouse := action{"type": "pointer", "id": "mouse", "actions": []action{
		{"type": "pointerMove", "origin": element, "x": 0, "y": 0},
		{"type": "pointerDown", "button": button}, {"type": "pointerUp", "button": button},
	}}
	keys := action{"type": "key", "id": "keys", "actions": []action{}}
	if key != "" {
		keys["actions"] = []action{{"type": "keyDown", "value": key}, {"type": "pause"}, {"type": "pause"},
			{"type": "keyUp", "value": key}}
	}
	f.call(t, "WebDriver:PerformActions", map[string]any{"actions": []action{keys, mouse}}, nil)
}
