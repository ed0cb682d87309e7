//go:build linux

package packages

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pixel-ping/internal/rig"
)

// The image of the application with Express, which compose.yml has built, runs from its
// own files as a user without rights, read-only: it takes requests, and its health check
// says that there is no database. The image under it is made of the Node of this machine,
// and its npm copies the packages that are installed already.
func TestImageOfTheApplication(t *testing.T) {
	installed := os.Getenv("EXPRESS")
	if installed == "" {
		t.Fatal("EXPRESS is not set; make packages sets it")
	}
	folder := t.TempDir()
	buildah := func(args ...string) {
		t.Helper()
		cmd := exec.Command("buildah", "--storage-driver", "vfs", "--root", folder+"/store", "--runroot", folder+"/run")
		cmd.Args = append(cmd.Args, args...)
		if _, err := output(cmd); err != nil {
			t.Fatal(err)
		}
	}
	buildah("build", "--quiet", "--tag", "node:22-slim", nodeImage(t, filepath.Join(folder, "node")))
	buildah("build", "--quiet", "--isolation", "chroot", "--pull-never",
		"--volume", installed+"/node_modules:/prepared:ro", "--tag", "hits", "../../../testdata/recipes/express")
	archive := filepath.Join(folder, "hits.tar")
	buildah("push", "--quiet", "hits", "docker-archive:"+archive+":hits:latest")
	image := readArchive(t, archive, "hits:latest")
	if c := image.Config; c.User != "node" || c.WorkingDir != "/srv/hits" || c.ExposedPorts["3000/tcp"] == nil {
		t.Errorf("the settings are %+v", c)
	}

	port := rig.FreePort(t)
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Path = filepath.Join("/usr/local/bin", args[0])
		cmd.Dir = image.Config.WorkingDir
		cmd.Env = append(image.Config.Env, "HOST=127.0.0.1", "PORT="+port, "SECRET=s", "LOGIN=editor:tuna",
			"PGHOST=127.0.0.1", "PGPORT=9")
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: image.root, Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
		return cmd
	}
	out := rig.NewOutput()
	rig.Start(t, command(image.Config.Cmd...), out, out)
	address := "http://127.0.0.1:" + port
	out.WaitLine(t, 0, "Saving hits at "+address+"/save_hits")
	for want, form := range map[int]url.Values{
		400: {"secret": {"s"}},
		403: {"json": {`{"a":1}`}, "secret": {"x"}},
		500: {"json": {`{"a":1}`}, "secret": {"s"}}, // there is no database
	} {
		answer, err := http.PostForm(address+"/save_hits", form)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%v: status %d, want %d", form, answer.StatusCode, want)
		}
	}
	const check = "fetch('http://127.0.0.1:3000/opened/health')" +
		".then((a) => process.exit(a.status === 404 || a.ok ? 0 : 1))"
	compose, err := os.ReadFile("../../../testdata/recipes/docker/compose.yml")
	if err != nil || !strings.Contains(string(compose), `["CMD", "node", "-e", "`+check+`"]`) {
		t.Fatalf("%v: compose.yml has another health check", err)
	}
	health := command("node", "-e", strings.Replace(check, ":3000", ":"+port, 1))
	if text, _ := health.CombinedOutput(); health.ProcessState.ExitCode() != 1 || len(text) > 0 {
		t.Errorf("the health check without a database ends with %v: %s", health.ProcessState, text)
	}
}

// nodeImage makes a folder from which an image can be built that has Node, a shell, an
// npm that copies /prepared, and a user node.
func nodeImage(t *testing.T, folder string) string {
	t.Helper()
	root := filepath.Join(folder, "root")
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("Dockerfile", "FROM scratch\nCOPY root /\nENV PATH=/usr/local/bin:/bin\n", 0o644)
	write("root/etc/passwd", "root:x:0:0::/:/bin/sh\nnode:x:1000:1000::/:/bin/sh\n", 0o644)
	write("root/etc/group", "root:x:0:\nnode:x:1000:\n", 0o644)
	write("root/usr/local/bin/npm", "#!/bin/sh\n[ \"$*\" = install ] && cp -R /prepared node_modules\n", 0o755)
	for program, to := range map[string]string{"node": "usr/local/bin/node", "sh": "bin/sh", "cp": "bin/cp"} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		libraries, err := output(exec.Command("ldd", path))
		if err != nil {
			t.Fatal(err)
		}
		copies := fmt.Sprintf("install -D %s %s/%s\n", path, root, to)
		for word := range strings.FieldsSeq(libraries) {
			if strings.HasPrefix(word, "/") {
				copies += fmt.Sprintf("install -D %s %s%s\n", word, root, word)
			}
		}
		if _, err := output(exec.Command("sh", "-e", "-c", copies)); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}
