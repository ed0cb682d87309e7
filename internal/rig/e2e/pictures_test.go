//go:build unix

package e2e

import (
	"bytes"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// The README has a picture of the receiver's page and one of the Express application's.
// make pictures takes them anew; otherwise the test holds the files to their size.
func TestPictures(t *testing.T) {
	takes := map[string]func(*testing.T) *tab{"receiver": showReceiver, "express": showExpress}
	for name, show := range takes {
		file := filepath.Join("../../../testdata/recipes", name, "page.png")
		if os.Getenv("PICTURES") != "" {
			at := show(t)
			var shot struct{ Data []byte }
			at.call(t, "Page.captureScreenshot", nil, &shot)
			if err := os.WriteFile(file, shot.Data, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatalf("%v (make pictures takes it)", err)
		}
		picture, err := png.Decode(bytes.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		} else if size := picture.Bounds().Size(); len(text) >= 60_000 || size.X < 600 || size.Y < 400 {
			t.Errorf("%s has %d bytes and %v pixels, want less than 60,000 bytes, and at least 600 times 400 pixels",
				file, len(text), size)
		}
	}
}

// onDesk returns a tab of a size in which a picture shows the whole page.
func onDesk(t *testing.T, height int) *tab {
	t.Helper()
	at := startBrowser(t, "").newTab(t)
	at.call(t, "Emulation.setDeviceMetricsOverride",
		map[string]any{"width": 760, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	at.call(t, "Emulation.setScrollbarsHidden", map[string]any{"hidden": true}, nil)
	return at
}

// showReceiver opens the page of the receiver after some flushes.
func showReceiver(t *testing.T) *tab {
	program := filepath.Join(t.TempDir(), "receiver")
	run(t, "", nil, "go", "build", "-buildvcs=false", "-o", program, recipe+"receiver")
	address, output := "127.0.0.1:"+rig.FreePort(t), rig.NewOutput()
	receiver := rig.Start(t, exec.Command(program, "-listen", address, "-secret", "s"), output, output)
	receiver.WaitListening(t, address)
	d := rig.StartDaemon(t, map[string]any{"endpoint": "http://" + address + "/save_hits", "secret": "s"})
	for _, hits := range []int{3, 8, 5, 13, 21, 14, 9, 17, 26, 19, 12, 6} {
		for i := range hits {
			d.Hit(t, []string{"article-42", "article-42", "article-7", "share article-42", "newsletter-7"}[i%5])
		}
		d.Flush(t)
	}
	at := onDesk(t, 700)
	at.open(t, "http://"+address+"/")
	at.eval(t, `new Promise((done) => setInterval(() => { if (plot.children.length === 12) done(true) }, 100))`, nil)
	return at
}

// showExpress opens the page of the Express application after a month.
func showExpress(t *testing.T) *tab {
	a := startApplication(t, "fsync=off")
	for ago := 29; ago >= 0; ago-- {
		n := int64(400 + 37*(ago*ago%11) - 8*ago)
		a.save(t, map[string]int64{
			"article-42": n, "article-7": n / 3, "newsletter-7": n / 5, "share article-42": n / 17,
		})
		a.query(t, "-c", fmt.Sprintf("UPDATE hits SET day = day - %d WHERE day = current_date", ago))
	}
	address, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(login, ":")
	address.User = url.UserPassword(user, password)
	at := onDesk(t, 590)
	at.open(t, address.String()+"/")
	return at
}
