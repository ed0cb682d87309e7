//go:build linux

package packages

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig"
)

// deb returns the path of a Debian package.
func (s source) deb(arch string) string {
	return s.path("deb/pixel-ping_" + s.version + "_" + arch + ".deb")
}

func TestLintian(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		text, err := output(exec.Command("lintian", "--allow-root", "--fail-on", "error,warning", made.deb(arch)))
		if err != nil || text != "" {
			t.Errorf("lintian: %v\n%s", err, text)
		}
	}
}

const documents = "usr/share/doc/pixel-ping/" // of the package

// The two packages differ in nothing but the program, and have the files that they
// should have. The recipes are those of the source, but for the READMEs and the path of
// the program.
func TestFilesOfTheDebianPackage(t *testing.T) {
	recipes := files(t, filepath.Join(made.folder, "testdata/recipes"))
	want := map[string]bool{
		"etc/pixel-ping/config.json":                true,
		"usr/bin/pixel-ping":                        true,
		documents + "README.md":                     true,
		documents + "changelog.gz":                  true,
		documents + "config.example.json":           true,
		documents + "copyright":                     true,
		"usr/share/lintian/overrides/pixel-ping":    true,
		"usr/share/man/man1/pixel-ping.1.gz":        true,
		"usr/lib/systemd/system/pixel-ping.service": true,
		"usr/lib/systemd/system/pixel-ping.socket":  true,
	}
	for name := range recipes {
		want[documents+"recipes/"+name] = true
	}
	for _, arch := range []string{"amd64", "arm64"} {
		folder := t.TempDir()
		run(t, "dpkg-deb", "--extract", made.deb(arch), folder)
		got := files(t, folder)
		for name := range got {
			if !want[name] {
				t.Errorf("%s: there is a file %s", arch, name)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: there are %d files, want %d", arch, len(got), len(want))
		}
		if field := run(t, "dpkg-deb", "--field", made.deb(arch), "Architecture"); field != arch+"\n" {
			t.Errorf("the architecture of the package is %q, want %s", field, arch)
		}
		// dpkg asks at an upgrade if it is another one: everybody has edited it.
		const sum = "f2e84cfe131124f209961ad84b0d24f9"
		if got := fmt.Sprintf("%x", md5.Sum([]byte(got["etc/pixel-ping/config.json"]))); got != sum {
			t.Errorf("the MD5 sum of the configuration is %s, want that of version 1.1.0, %s", got, sum)
		}
		if got := machine(t, got["usr/bin/pixel-ping"]); got != "linux-"+arch {
			t.Errorf("the program is for %s, want %s", got, arch)
		}
		for name, text := range recipes {
			text = strings.ReplaceAll(text, "/usr/local/bin/", "/usr/bin/")
			if filepath.Base(name) != "README.md" && got[documents+"recipes/"+name] != text {
				t.Errorf("%s differs from the recipe in more than the path of the program", name)
			}
		}
		for _, name := range []string{"pixel-ping.service", "pixel-ping.socket"} {
			if got["usr/lib/systemd/system/"+name] != got[documents+"recipes/systemd/"+name] {
				t.Errorf("the unit %s is not the one of the recipes", name)
			}
		}
	}
}

// What the READMEs of the package link to and name is in the package.
func TestReadmesOfTheDebianPackage(t *testing.T) {
	folder := t.TempDir()
	run(t, "dpkg-deb", "--extract", made.deb("amd64"), folder)
	checkLinks(t, filepath.Join(folder, documents))
	named := regexp.MustCompile(`/usr/share/doc/pixel-ping[\w./-]*[\w/]|testdata\S*`)
	names := 0
	for readme, text := range files(t, filepath.Join(folder, documents)) {
		if filepath.Base(readme) != "README.md" {
			continue
		}
		for _, name := range named.FindAllString(text, -1) {
			names++
			if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
				t.Errorf("%s names %s, which is not there", readme, name)
			}
		}
		if strings.Contains(text, "the repository") {
			t.Errorf("%s speaks of the repository", readme)
		}
	}
	if names < 9 {
		t.Errorf("the READMEs name only %d files of the package", names)
	}
}

// A system is a copy of the machine's file system: what is written to it goes to
// the folder changes, and leaves the machine as it is. systemd seems to run in it,
// but its two commands that packages use only write down how they were called. The
// service is active, and its socket is enabled, if the file /running is there.
type system struct {
	folder  string
	changes string
}

func newSystem(t *testing.T) system {
	t.Helper()
	s := system{folder: t.TempDir()}
	s.changes = filepath.Join(s.folder, "changes")
	for _, name := range []string{"changes", "work", "root"} {
		if err := os.Mkdir(filepath.Join(s.folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tools := filepath.Join(s.changes, "usr/local/bin")
	if err := os.MkdirAll(tools, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"systemctl", "deb-systemd-invoke"} {
		const script = "#!/bin/sh\ncase $* in *is-*) [ -e /running ];; *) echo \"${0##*/} $*\" >>/calls;; esac\n"
		if err := os.WriteFile(filepath.Join(tools, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// calls returns the calls of systemd's commands since the last calls.
func (s system) calls(t *testing.T) string {
	t.Helper()
	path := filepath.Join(s.changes, "calls")
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// command returns a command that runs in the system. The mounts are the command's
// own and vanish with it. Two commands must not run at the same time.
func (s system) command(args ...string) *exec.Cmd {
	const enter = `cd "$0"
mount -t overlay overlay -o lowerdir=/,upperdir=changes,workdir=work root
mount --rbind /dev root/dev
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
mkdir -p root/run/systemd/system
exec chroot root "$@"`
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-ec", enter, s.folder}, args...)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd
}

func (s system) run(t *testing.T, args ...string) string {
	t.Helper()
	text, err := output(s.command(args...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// startService starts the command of the unit as the user of the unit.
func (s system) startService(t *testing.T) *rig.Process {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(s.changes, "usr/lib/systemd/system/pixel-ping.service"))
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		t.Helper()
		found := regexp.MustCompile(`(?m)^`+name+`=(.*)$`).FindAllStringSubmatch(string(unit), -1)
		if len(found) != 1 {
			t.Fatalf("the unit has %s= %d times, want once", name, len(found))
		}
		return found[0][1]
	}
	user, log := setting("User"), rig.NewOutput()
	as := []string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups"}
	return rig.Start(t, s.command(append(as, strings.Fields(setting("ExecStart"))...)...), log, log)
}

// running says whether the service runs.
func (s system) running(t *testing.T, runs bool) {
	t.Helper()
	path := filepath.Join(s.changes, "running")
	err := os.Remove(path)
	if runs {
		err = os.WriteFile(path, nil, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

const configPath = "/etc/pixel-ping/config.json"

// The package is installed, used, upgraded, removed and purged, as an administrator
// would do it.
func TestDebianPackage(t *testing.T) {
	s, app := newSystem(t), rig.NewEndpoint(t)
	config := filepath.Join(s.changes, configPath)
	checkMode := func(when string) {
		t.Helper()
		info, err := os.Stat(config)
		if err != nil {
			t.Fatal(err)
		}
		owner := s.run(t, "stat", "--format=%U:%G", configPath)
		if info.Mode() != 0o640 || owner != "root:pixel-ping\n" {
			t.Errorf("%s, the configuration has the mode %v and the owner %s", when, info.Mode(), owner)
		}
	}

	installed := s.run(t, "dpkg", "--install", made.deb("amd64"))
	if !strings.Contains(installed, "Edit "+configPath+", and then run: systemctl enable --now pixel-ping\n") {
		t.Errorf("the installation does not say what to do next:\n%s", installed)
	}
	checkMode("after the installation")
	const reload = "systemctl --system daemon-reload\n"
	if calls := s.calls(t); calls != reload {
		t.Errorf("the installation calls %q, and should start nothing", calls)
	}

	// Nobody has edited the configuration: the service does not start.
	process := s.startService(t)
	status, said := process.Wait(t), process.Stdout.String()
	if want := "pixel-ping: " + configPath + ": endpoint: "; status == 0 || !strings.Contains(said, want) ||
		!strings.Contains(said, "EDIT THIS") {
		t.Errorf("with the shipped configuration the exit status is %d, and it says %q, want that it names what to edit",
			status, said)
	}

	// Two lines are edited: it starts, counts and delivers.
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	port := rig.FreePort(t)
	edited := regexp.MustCompile(`"EDIT THIS.*"`).ReplaceAllString(string(text), `"http://`+app.Address+`/save_hits"`)
	edited = strings.Replace(edited, `"9187"`, `"`+port+`"`, 1)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil { // the mode of a new file
			t.Fatal(err)
		}
	}
	write(edited)
	use := func(key string) {
		t.Helper()
		process := s.startService(t)
		process.Stdout.WaitLine(t, 0, "Serving the pixel at ")
		daemon := &rig.Daemon{Process: process, Address: "localhost:" + port}
		daemon.Hit(t, key)
		daemon.Flush(t)
		if got, want := app.Body(t), "json=%7B%22"+key+"%22%3A1%7D"; got != want {
			t.Errorf("the application receives %s, want %s", got, want)
		}
		daemon.Hit(t, key+"-at-the-stop")
		daemon.Stop(t)
		if got, want := app.Body(t), "json=%7B%22"+key+"-at-the-stop%22%3A1%7D"; got != want {
			t.Errorf("at the stop the application receives %s, want %s", got, want)
		}
	}
	use("installed")

	// An upgrade keeps the configuration, without a question.
	newer := makeNewer(t)
	s.running(t, true)
	s.run(t, "dpkg", "--install", newer.deb("amd64"))
	if calls := s.calls(t); !strings.HasSuffix(calls, reload+"deb-systemd-invoke try-restart pixel-ping.service\n") ||
		strings.Contains(calls, "stop") {
		t.Errorf("the upgrade calls %q, and should restart the service only", calls)
	}
	if got := s.run(t, "pixel-ping", "--version"); !strings.HasPrefix(got, "Pixel Ping version "+newer.version) {
		t.Errorf("after the upgrade, --version prints %q", got)
	}
	if text, err := os.ReadFile(config); string(text) != edited {
		t.Errorf("after the upgrade, the configuration is %s (error %v)", text, err)
	}
	checkMode("after the upgrade")
	use("upgraded")

	// A version that would not start leaves the one that runs alone.
	write(strings.Replace(edited, `"interval"`, `"intervall"`, 1))
	reconfigured := s.run(t, "/var/lib/dpkg/info/pixel-ping.postinst", "configure", newer.version)
	if calls := s.calls(t); calls != reload {
		t.Errorf("with a broken configuration, the upgrade calls %q, and should not restart", calls)
	}
	for _, want := range []string{
		"pixel-ping: " + configPath + ": interval: missing", "pixel-ping was not restarted",
		"Mend " + configPath + ", or what that line names, and then run: systemctl restart pixel-ping\n",
	} {
		if !strings.Contains(reconfigured, want) {
			t.Errorf("with a broken configuration, the upgrade does not say %q:\n%s", want, reconfigured)
		}
	}
	write(edited)

	// What systemctl enable does.
	wants := filepath.Join(s.changes, "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	const unit = "/usr/lib/systemd/system/pixel-ping.service"
	if err := os.Symlink(unit, filepath.Join(wants, "pixel-ping.service")); err != nil {
		t.Fatal(err)
	}

	// A removal keeps what the administrator has decided, and a purge keeps nothing.
	s.run(t, "dpkg", "--remove", "pixel-ping")
	if calls := s.calls(t); !strings.HasPrefix(calls, "deb-systemd-invoke stop pixel-ping.service") {
		t.Errorf("the removal calls %q, and should stop the service first", calls)
	}
	if text, err := os.ReadFile(config); string(text) != edited {
		t.Errorf("after the removal, the configuration is %s (error %v)", text, err)
	}
	if _, err := os.Stat(filepath.Join(s.changes, "usr/bin/pixel-ping")); err == nil {
		t.Error("after the removal, the program is still there")
	}

	// An installation after it goes on with the same configuration, and says how.
	s.running(t, false)
	installed = s.run(t, "dpkg", "--install", newer.deb("amd64"))
	if !strings.Contains(installed, "pixel-ping does not run. To start it, run: systemctl enable --now pixel-ping\n") {
		t.Errorf("the second installation does not say what to do next:\n%s", installed)
	}
	use("reinstalled")
	for _, name := range []string{"/var/lib/pixel-ping", "/etc/systemd/system/pixel-ping.service.d"} {
		if err := os.MkdirAll(filepath.Join(s.changes, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.run(t, "dpkg", "--purge", "pixel-ping")
	if left := run(t, "find", s.changes, "-name", "*pixel-ping*"); left != "" {
		t.Errorf("after the purge, these are left:\n%s", left)
	}
}

// An upgrade from 1.1, whose user systemd made: the journal moves to where the new user
// may go, and the user joins the group that may read the certificate's key.
func TestUpgradeFrom11(t *testing.T) {
	s := newSystem(t)
	s.run(t, "dpkg", "--install", made.deb("amd64"))
	s.run(t, "groupadd", "--system", "pixel-ping-tls")
	s.run(t, "sh", "-ec", `
cd /var/lib
mkdir -p private/pixel-ping
chmod 700 private private/pixel-ping
chown 61184:61184 private/pixel-ping
echo counts >private/pixel-ping/counts
ln -s private/pixel-ping .`)
	s.running(t, true)
	s.run(t, "/var/lib/dpkg/info/pixel-ping.postinst", "configure", "1.1.0")
	script := "cat /var/lib/private/pixel-ping/counts; test -w /var/lib/pixel-ping && ls /var/lib/pixel-ping; id -Gn"
	got, _ := output(s.command("runuser", "-u", "pixel-ping", "--", "sh", "-c", script))
	if !strings.HasSuffix(got, "\ncounts\npixel-ping pixel-ping-tls\n") {
		t.Errorf("after the upgrade, the user finds:\n%s", got)
	}
}

// makeNewer changes the version in the second folder and makes its packages.
func makeNewer(t *testing.T) source {
	t.Helper()
	newer := again
	newer.version = made.version + "1"
	for name, of := range map[string]string{
		"internal/version/version.go": `const Number = "VERSION"`,
		"README.md":                   "**New in VERSION**",
	} {
		path := filepath.Join(newer.folder, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		before, after := strings.Replace(of, "VERSION", made.version, 1), strings.Replace(of, "VERSION", newer.version, 1)
		if !strings.Contains(string(text), before) {
			t.Fatalf("%s does not have %s", name, before)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), before, after, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := newer.make("022", "UTC", "deb"); err != nil {
		t.Fatal(err)
	}
	return newer
}
