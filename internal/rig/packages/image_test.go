//go:build linux

package packages

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// image is what Docker reads from an image.
type image struct {
	Architecture string
	Config       struct {
		User, StopSignal     string
		WorkingDir           string
		Env, Entrypoint, Cmd []string
		Healthcheck          struct{ Test []string }
		ExposedPorts         map[string]any
	}
	root string // the folder in which its layers are unpacked
}

// readImage reads the image of an architecture from its archive.
func readImage(t *testing.T, arch string) *image {
	t.Helper()
	name := made.version + "-" + arch
	return readArchive(t, made.path("image/pixel-ping-"+name+".tar"), "pixel-ping:"+name)
}

// readArchive reads the image with a tag from an archive.
func readArchive(t *testing.T, path, tag string) *image {
	t.Helper()
	archive := tarFiles(t, path)
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(archive["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("error %v in the manifest %s", err, archive["manifest.json"])
	}
	named := func(name string) bool { return name == tag || strings.HasSuffix(name, "/"+tag) }
	if names := manifest[0].RepoTags; !slices.ContainsFunc(names, named) {
		t.Errorf("the names of the image are %q, want %s", names, tag)
	}
	i := &image{root: t.TempDir()}
	if err := json.Unmarshal(archive[manifest[0].Config], i); err != nil {
		t.Fatal(err)
	}
	for _, layer := range manifest[0].Layers {
		unpack := exec.Command("tar", "-x", "-C", i.root)
		unpack.Stdin = bytes.NewReader(archive[layer])
		if _, err := output(unpack); err != nil {
			t.Fatal(err)
		}
	}
	// Docker's containers begin in a folder that everybody may enter.
	if err := os.Chmod(i.root, 0o755); err != nil {
		t.Fatal(err)
	}
	return i
}

// tarFiles returns the regular files of an archive.
func tarFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	found := make(map[string][]byte)
	for r := tar.NewReader(file); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag == tar.TypeReg {
			if found[header.Name], err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// An image has the program and the certificates and nothing else, and runs the
// program as a user without rights.
func TestImages(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		image := readImage(t, arch)
		got := files(t, image.root)
		want := []string{"etc/ssl/certs/ca-certificates.crt", "pixel-ping"}
		if names := slices.Sorted(maps.Keys(got)); !slices.Equal(names, want) {
			t.Errorf("%s: the files are %q", arch, names)
		}
		if got := machine(t, got["pixel-ping"]); got != "linux-"+arch || image.Architecture != arch {
			t.Errorf("the image for %s is for %s, and its program for %s", arch, image.Architecture, got)
		}
		certificates := 0
		for rest := []byte(got["etc/ssl/certs/ca-certificates.crt"]); ; certificates++ {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
		}
		if certificates < 100 {
			t.Errorf("%s: there are %d certificates, and Debian has more than 100", arch, certificates)
		}
		c := image.Config
		if c.User != "65534:65534" || c.StopSignal != "SIGTERM" || c.ExposedPorts["9187/tcp"] == nil {
			t.Errorf("%s: the settings are %+v", arch, c)
		}
	}
}

// The image runs from its own files: it answers the probe and a hit, keeps its journal in
// the folder that the image has for it, flushes to an
// endpoint with HTTPS, and delivers what it holds when it is stopped.
func TestImageRuns(t *testing.T) {
	image := readImage(t, "amd64")
	requests := make(chan string, 10)
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- string(body)
	}))
	authority := rig.Issue(t, "authority", nil)
	certificate := rig.Issue(t, "application", authority)
	app.TLS = &tls.Config{Certificates: []tls.Certificate{{
		Certificate: [][]byte{certificate.Certificate.Raw}, PrivateKey: certificate.Key,
	}}}
	app.StartTLS()
	defer app.Close()

	// The authority is added to the file of the image, as its README says.
	trusted, err := os.OpenFile(filepath.Join(image.root, "etc/ssl/certs/ca-certificates.crt"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = trusted.WriteString(rig.CertificatesPEM(authority))
		err = errors.Join(err, trusted.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	port := rig.FreePort(t)
	mount(t, image, map[string]any{"host": "127.0.0.1", "port": port, "interval": 3600, "endpoint": app.URL,
		"journal": "/var/lib/pixel-ping"})

	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(image.Config.Entrypoint[0], append(image.Config.Entrypoint[1:], args...)...)
		cmd.Dir, cmd.Env = "/", image.Config.Env
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: image.root, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd
	}
	cmd := command(image.Config.Cmd...)
	daemon := &rig.Daemon{Process: rig.Start(t, cmd, rig.NewOutput(), rig.NewOutput()), Address: "127.0.0.1:" + port}
	daemon.Stdout.WaitLine(t, 0, "Serving the pixel at ")
	probe := healthcheck(t, image)
	if text, err := probe.CombinedOutput(); err != nil || string(text) != configPath+": the daemon serves the pixel\n" {
		t.Errorf("the probe %q: %v\n%s", probe.Args, err, text)
	}
	// The health check of compose.yml.
	if text, err := command("--health", image.Config.Cmd[0]).CombinedOutput(); err != nil {
		t.Errorf("the health check: %v: %s", err, text)
	}
	daemon.Hit(t, "a", "a")
	daemon.Flush(t)
	daemon.Hit(t, "b")
	daemon.Stop(t)
	for _, want := range []string{"json=%7B%22a%22%3A2%7D", "json=%7B%22b%22%3A1%7D"} {
		if got := <-requests; got != want {
			t.Errorf("the application receives %s, want %s", got, want)
		}
	}
	probe = healthcheck(t, image)
	if text, err := probe.CombinedOutput(); err == nil {
		t.Errorf("after the stop, the probe %q is content:\n%s", probe.Args, text)
	}
}

// healthcheck returns the command of the image's HEALTHCHECK, which runs as the daemon
// does. It is also the probes' of the recipe for Kubernetes.
func healthcheck(t *testing.T, image *image) *exec.Cmd {
	t.Helper()
	test := image.Config.Healthcheck.Test
	if len(test) < 2 || test[0] != "CMD" {
		t.Fatalf("the HEALTHCHECK of the image is %q", test)
	}
	recipe, err := os.ReadFile("../../../testdata/recipes/docker/kubernetes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if command := "exec: {command: [" + strings.Join(test[1:], ", ") + "]}"; strings.Count(string(recipe), command) != 2 {
		t.Errorf("kubernetes.yaml does not have two probes with %s", command)
	}
	cmd := exec.Command(test[1], test[2:]...)
	cmd.Dir, cmd.Env = "/", image.Config.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: image.root, Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// mount puts a configuration to the place where the image expects one, readable by
// the user of the image and nobody else.
func mount(t *testing.T, image *image, settings map[string]any) {
	t.Helper()
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(image.root, configPath)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
}
