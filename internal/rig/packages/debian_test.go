//go:build linux

package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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

// The two packages differ in nothing but the program, and have the files that they
// should have.
func TestFilesOfTheDebianPackage(t *testing.T) {
	units := files(t, filepath.Join(made.folder, "testdata/recipes/systemd"))
	want := map[string]bool{
		"etc/pixel-ping/config.json":                true,
		"usr/bin/pixel-ping":                        true,
		"usr/share/doc/pixel-ping/README.md":        true,
		"usr/share/doc/pixel-ping/changelog.gz":     true,
		"usr/share/doc/pixel-ping/copyright":        true,
		"usr/share/lintian/overrides/pixel-ping":    true,
		"usr/share/man/man1/pixel-ping.1.gz":        true,
		"usr/lib/systemd/system/pixel-ping.service": true,
	}
	for name := range units {
		if strings.HasSuffix(name, ".socket") {
			want["usr/lib/systemd/system/"+name] = true
		}
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
		if got := machine(t, got["usr/bin/pixel-ping"]); got != "linux-"+arch {
			t.Errorf("the program is for %s, want %s", got, arch)
		}
		unit := strings.ReplaceAll(units["pixel-ping.service"], "/usr/local/bin/", "/usr/bin/")
		if got["usr/lib/systemd/system/pixel-ping.service"] != unit {
			t.Error("the unit differs from the recipe in more than the path of the program")
		}
	}
}

// A system is a copy of the machine's file system: what is written to it goes to
// the folder changes, and leaves the machine as it is. systemd seems to run in it,
// but its two commands that packages use only write down how they were called.
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
		script := "#!/bin/sh\necho \"${0##*/} $*\" >>/calls\n"
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

// startService starts the commands of the unit in the order in which systemd would
// start them, and returns the one that serves, or the first one that failed.
func (s system) startService(t *testing.T) (process *rig.Process, failed bool) {
	t.Helper()
	unit, err := os.ReadFile(filepath.Join(s.changes, "usr/lib/systemd/system/pixel-ping.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ExecStartPre", "ExecStart"} {
		// A plus sign before the path means "as root".
		for _, line := range regexp.MustCompile(`(?m)^`+name+`=\+?(.*)$`).FindAllStringSubmatch(string(unit), -1) {
			log := rig.NewOutput()
			process = rig.Start(t, s.command(strings.Fields(line[1])...), log, log)
			if name == "ExecStartPre" && process.Wait(t) != 0 {
				return process, true
			}
		}
	}
	if process == nil {
		t.Fatal("the unit starts nothing")
	}
	return process, false
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
		if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || stat.Uid != 0 || stat.Gid != 0 {
			t.Errorf("%s, the configuration has the mode %v and the owner %d:%d", when, info.Mode(), stat.Uid, stat.Gid)
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
	process, _ := s.startService(t)
	if status := process.Wait(t); status != 1 {
		t.Errorf("with the shipped configuration the exit status is %d, want 1", status)
	}
	said := process.Stdout.String()
	if !strings.HasPrefix(said, "pixel-ping: "+configPath+": endpoint: ") || !strings.Contains(said, "EDIT THIS") ||
		strings.Count(said, "\n") != 1 {
		t.Errorf("with the shipped configuration it says %q, want one line that says what to edit", said)
	}

	// Two lines are edited: it starts, counts and delivers.
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	port := rig.FreePort(t)
	edited := regexp.MustCompile(`"EDIT THIS.*"`).ReplaceAllString(string(text), `"http://`+app.Address+`/save_hits"`)
	edited = strings.Replace(edited, `"9187"`, `"`+port+`"`, 1)
	if err := os.WriteFile(config, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	use := func(key string) {
		t.Helper()
		process, failed := s.startService(t)
		if failed {
			t.Fatalf("the service does not start: %s", process.Stdout)
		}
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
	s.run(t, "dpkg", "--purge", "pixel-ping")
	if left := run(t, "find", s.changes, "-name", "*pixel-ping*"); left != "" {
		t.Errorf("after the purge, these are left:\n%s", left)
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
