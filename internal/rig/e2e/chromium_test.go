//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"pixel-ping/internal/rig"
)

// browser is a Chromium without a window. The test controls it with the DevTools
// protocol over two pipes. Its methods may be called by many goroutines at once.
type browser struct {
	output *rig.Output
	gone   chan struct{} // closed when the pipe ends

	mu       sync.Mutex
	commands io.Writer
	last     int64                 // id of a command
	answers  map[int64]chan answer // by the id of the command
	tabs     map[string]*tab       // by session
}

// answer is Chromium's answer to a command.
type answer struct {
	Result json.RawMessage
	Error  *struct{ Message string }
}

// startBrowser starts a Chromium with a new profile. It resolves every host name to
// 127.0.0.1, and it accepts certificates whose key has this hash.
func startBrowser(t *testing.T, keyHash string) *browser {
	t.Helper()
	commandsOut, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	messages, messagesIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("chromium", "--remote-debugging-pipe", "--user-data-dir="+profile,
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--host-resolver-rules=MAP * 127.0.0.1", "--ignore-certificate-errors-spki-list="+keyHash)
	cmd.ExtraFiles = []*os.File{commandsOut, messagesIn} // 3 and 4, as Chromium expects them
	b := &browser{
		output:   rig.NewOutput(),
		gone:     make(chan struct{}),
		commands: commands,
		answers:  make(map[int64]chan answer),
		tabs:     make(map[string]*tab),
	}
	process := rig.StartGroup(t, cmd, b.output, b.output)
	commandsOut.Close()
	messagesIn.Close()
	go b.read(messages)
	t.Cleanup(func() {
		commands.Close() // Chromium ends when this pipe is closed
		process.Wait(t)
		process.KillGroup()
		<-b.gone
		messages.Close()
		removeProfile(t, profile)
	})
	return b
}

// removeProfile removes the folder of the profile. It tries again while processes of
// Chromium that have not ended write to the folder.
func removeProfile(t *testing.T, profile string) {
	t.Helper()
	for limit := time.Now().Add(rig.Deadline); ; {
		err := os.RemoveAll(profile)
		if err == nil {
			return
		}
		if time.Now().After(limit) {
			t.Error(err)
			return
		}
		<-time.After(10 * time.Millisecond)
	}
}

// read passes Chromium's messages to whoever waits for them, until Chromium ends. A
// message ends with a NUL.
func (b *browser) read(messages io.Reader) {
	defer close(b.gone)
	for r := bufio.NewReader(messages); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var message struct {
			answer
			ID        int64
			SessionID string
			Method    string
			Params    struct{ FrameID, LoaderID, Name string }
		}
		if err := json.Unmarshal(text[:len(text)-1], &message); err != nil {
			panic(fmt.Sprintf("Chromium sends %s: %v", text, err))
		}
		b.mu.Lock()
		answered, at := b.answers[message.ID], b.tabs[message.SessionID]
		delete(b.answers, message.ID)
		b.mu.Unlock()
		load := message.Method == "Page.lifecycleEvent" && message.Params.Name == "load"
		switch {
		case answered != nil:
			answered <- message.answer
		case load && at != nil && message.Params.FrameID == at.target:
			at.loads <- message.Params.LoaderID
		}
	}
}

// call sends a command to a session, or to the browser if session is "", and waits
// for the answer. It decodes the answer into result, if that is not nil.
func (b *browser) call(t *testing.T, session, method string, params map[string]any, result any) {
	t.Helper()
	answered := make(chan answer, 1)
	b.mu.Lock()
	b.last++
	b.answers[b.last] = answered
	command := map[string]any{"id": b.last, "method": method, "params": params}
	if session != "" {
		command["sessionId"] = session
	}
	text, err := json.Marshal(command)
	if err == nil {
		_, err = b.commands.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		t.Fatalf("%s: %v; Chromium's output is:\n%s", method, err, b.output)
	}
	select {
	case a := <-answered:
		if a.Error != nil {
			t.Fatalf("%s: %s", method, a.Error.Message)
		}
		if result == nil {
			return
		}
		if err := json.Unmarshal(a.Result, result); err != nil {
			t.Fatalf("%s: %s: %v", method, a.Result, err)
		}
	case <-b.gone:
		t.Fatalf("%s: Chromium has ended; its output is:\n%s", method, b.output)
	case <-time.After(rig.Deadline):
		t.Fatalf("%s: Chromium does not answer", method)
	}
}

// tab is a tab of a browser.
type tab struct {
	browser         *browser
	target, session string
	loads           chan string // the loaders of the documents that were loaded
	loader          string      // the loader of the document that is shown
}

// newTab opens a tab that shares no cache, cookies or connections with others.
func (b *browser) newTab(t *testing.T) *tab {
	t.Helper()
	var made struct{ BrowserContextID, TargetID, SessionID string }
	b.call(t, "", "Target.createBrowserContext", nil, &made)
	blank := map[string]any{"url": "about:blank", "browserContextId": made.BrowserContextID}
	b.call(t, "", "Target.createTarget", blank, &made)
	b.call(t, "", "Target.attachToTarget", map[string]any{"targetId": made.TargetID, "flatten": true}, &made)
	at := &tab{browser: b, target: made.TargetID, session: made.SessionID, loads: make(chan string, 100)}
	b.mu.Lock()
	b.tabs[at.session] = at
	b.mu.Unlock()
	at.call(t, "Page.enable", nil, nil)
	at.call(t, "Page.setLifecycleEventsEnabled", map[string]any{"enabled": true}, nil)
	return at
}

func (at *tab) call(t *testing.T, method string, params map[string]any, result any) {
	t.Helper()
	at.browser.call(t, at.session, method, params, result)
}

// open opens an address and waits until the page and its images are loaded.
func (at *tab) open(t *testing.T, address string) {
	t.Helper()
	var begun struct{ LoaderID, ErrorText string }
	at.call(t, "Page.navigate", map[string]any{"url": address}, &begun)
	if begun.ErrorText != "" {
		t.Fatalf("%s: %s", address, begun.ErrorText)
	}
	for at.loader != begun.LoaderID {
		at.waitLoad(t)
	}
}

// reload reloads the page, as F5 does, and waits until it is loaded.
func (at *tab) reload(t *testing.T) {
	t.Helper()
	at.call(t, "Page.reload", nil, nil)
	at.waitLoad(t)
}

// waitLoad waits until a new document is loaded.
func (at *tab) waitLoad(t *testing.T) {
	t.Helper()
	for timeout := time.After(rig.Deadline); ; {
		select {
		case loader := <-at.loads:
			if loader != at.loader {
				at.loader = loader
				return
			}
		case <-timeout:
			t.Fatal("the page is not loaded")
		}
	}
}

// eval evaluates a script in the page with the rights of a user's click. It waits
// for the value if the value is a promise, and decodes it into value, if that is not
// nil.
func (at *tab) eval(t *testing.T, script string, value any) {
	t.Helper()
	var evaluated struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	at.call(t, "Runtime.evaluate", map[string]any{
		"expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true,
	}, &evaluated)
	if failed := evaluated.ExceptionDetails; failed != nil {
		t.Fatalf("%s: %s", script, failed.Exception.Description)
	}
	if value == nil {
		return
	}
	if err := json.Unmarshal(evaluated.Result.Value, value); err != nil {
		t.Fatalf("%s: %s: %v", script, evaluated.Result.Value, err)
	}
}

// click clicks on the element that a selector selects.
func (at *tab) click(t *testing.T, selector string) {
	t.Helper()
	at.clickWith(t, selector, "left", 0)
}

// clickWith clicks with a button of the mouse while modifier keys are held (1 is Alt, 2
// is Ctrl, 4 is Meta, 8 is Shift).
func (at *tab) clickWith(t *testing.T, selector, button string, modifiers int) {
	t.Helper()
	var middle struct{ X, Y float64 }
	at.eval(t, `(() => {
		const r = document.querySelector("`+selector+`").getBoundingClientRect();
		return { x: r.x + r.width / 2, y: r.y + r.height / 2 };
	})()`, &middle)
	for _, event := range []string{"mousePressed", "mouseReleased"} {
		at.call(t, "Input.dispatchMouseEvent", map[string]any{
			"type": event, "x": middle.X, "y": middle.Y, "button": button, "modifiers": modifiers, "clickCount": 1,
		}, nil)
	}
}

// close closes the tab, as a user does.
func (at *tab) close(t *testing.T) {
	t.Helper()
	at.browser.call(t, "", "Target.closeTarget", map[string]any{"targetId": at.target}, nil)
}
