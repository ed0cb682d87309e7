//go:build linux

package packages

import (
	"bytes"
	"debug/elf"
	"debug/macho"
	"debug/pe"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// files returns the contents of the files in a folder and below, by path.
func files(t *testing.T, folder string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	root := os.DirFS(folder)
	err := filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		text, err := io.ReadAll(file)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var platforms = []string{
	"darwin-amd64", "darwin-arm64", "freebsd-amd64", "linux-amd64", "linux-arm64", "linux-armv7", "windows-amd64",
}

// archive returns the name of the archive for a platform.
func archive(platform string) string {
	if strings.HasPrefix(platform, "windows") {
		return "pixel-ping-" + made.version + "-" + platform + ".zip"
	}
	return "pixel-ping-" + made.version + "-" + platform + ".tar.gz"
}

// Two folders give the same archives and Debian packages, byte by byte.
func TestReproducible(t *testing.T) {
	for _, folder := range []string{"dist", "deb"} {
		one, two := files(t, made.path(folder)), files(t, again.path(folder))
		want := []string{"SHA256SUMS"}
		for _, platform := range platforms {
			want = append(want, archive(platform))
		}
		if folder == "deb" {
			want = []string{"pixel-ping_" + made.version + "_amd64.deb", "pixel-ping_" + made.version + "_arm64.deb"}
		}
		if names := slices.Sorted(maps.Keys(one)); !slices.Equal(names, slices.Sorted(slices.Values(want))) {
			t.Errorf("make %s makes %q, want %q", folder, names, want)
		}
		for name, text := range one {
			if text != two[name] {
				t.Errorf("%s differs between two folders", name)
			}
		}
		if len(one) != len(two) {
			t.Errorf("make %s makes %d files in one folder and %d in another", folder, len(one), len(two))
		}
	}
}

func TestChecksums(t *testing.T) {
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = made.path("dist")
	text, err := output(cmd)
	if err != nil || strings.Count(text, ": OK\n") != len(platforms) {
		t.Errorf("%v\n%s", err, text)
	}
}

// unpack unpacks the archive for a platform, and returns the one folder in it.
func unpack(t *testing.T, platform string) string {
	t.Helper()
	folder, file := t.TempDir(), made.path("dist/"+archive(platform))
	if strings.HasSuffix(file, ".zip") {
		run(t, "unzip", "-q", "-d", folder, file)
	} else {
		run(t, "tar", "-xzf", file, "-C", folder)
	}
	names, err := filepath.Glob(folder + "/*")
	if want := filepath.Join(folder, "pixel-ping-"+made.version+"-"+platform); !slices.Equal(names, []string{want}) {
		t.Fatalf("the archive has %q, want %q (error %v)", names, want, err)
	}
	return names[0]
}

// Each archive has the program for its platform, and everything else that it needs.
func TestArchives(t *testing.T) {
	recipes := files(t, filepath.Join(made.folder, "testdata/recipes"))
	for _, platform := range platforms {
		t.Run(platform, func(t *testing.T) {
			folder := unpack(t, platform)
			checkLinks(t, folder)
			got := files(t, folder)
			program := "pixel-ping"
			if strings.HasPrefix(platform, "windows") {
				program += ".exe"
			}
			if machine := machine(t, got[program]); machine != platform {
				t.Errorf("%s is a program for %s", program, machine)
			}
			licence := got["LICENCE"]
			if !strings.HasPrefix(licence, "MIT") || !strings.Contains(licence, "Permission is hereby granted") ||
				!strings.HasSuffix(got["README.md"], "## Licence\n\n"+licence) {
				t.Errorf("the licence is %q", licence)
			}
			if !strings.HasPrefix(got["pixel-ping.1"], ".TH PIXEL-PING 1 ") {
				t.Errorf("the manual page begins with %.40q", got["pixel-ping.1"])
			}
			for name, text := range recipes {
				if filepath.Base(name) != "README.md" && got["testdata/recipes/"+name] != text {
					t.Errorf("the recipe %s is missing or differs", name)
				}
			}
			// The five above, and the example configuration.
			if want := len(recipes) + 5; len(got) != want || got["config.example.json"] == "" {
				t.Errorf("there are %d files, want %d: %q", len(got), want, slices.Sorted(maps.Keys(got)))
			}
		})
	}
}

// checkLinks checks that the links of the READMEs in a folder and below lead to files
// there.
func checkLinks(t *testing.T, folder string) {
	t.Helper()
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	links := 0
	for readme, text := range files(t, folder) {
		if filepath.Base(readme) != "README.md" {
			continue
		}
		for _, parts := range link.FindAllStringSubmatch(text, -1) {
			links++
			if _, err := os.Stat(filepath.Join(folder, filepath.Dir(readme), parts[1])); err != nil {
				t.Errorf("%s has the link %s, which leads nowhere", readme, parts[0])
			}
		}
	}
	if links < 30 {
		t.Errorf("the READMEs have only %d links", links)
	}
}

// machine returns the platform of a program, in the words of the archives.
func machine(t *testing.T, program string) string {
	t.Helper()
	r := bytes.NewReader([]byte(program))
	if file, err := elf.NewFile(r); err == nil {
		system := "linux"
		if file.OSABI == elf.ELFOSABI_FREEBSD {
			system = "freebsd"
		}
		return system + "-" + map[elf.Machine]string{
			elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_ARM: "armv7",
		}[file.Machine]
	}
	if file, err := macho.NewFile(r); err == nil {
		return "darwin-" + map[macho.Cpu]string{macho.CpuAmd64: "amd64", macho.CpuArm64: "arm64"}[file.Cpu]
	}
	if file, err := pe.NewFile(r); err == nil && file.Machine == pe.IMAGE_FILE_MACHINE_AMD64 {
		return "windows-amd64"
	}
	t.Fatal("a program of no known form")
	return ""
}

// The program names the version and the commit that it was built from.
func TestVersion(t *testing.T) {
	program := filepath.Join(unpack(t, "linux-amd64"), "pixel-ping")
	want := "Pixel Ping version " + made.version + " (" + made.commit + ")\n"
	if got := run(t, program, "--version"); got != want {
		t.Errorf("--version prints %q, want %q", got, want)
	}
}

// man formats the manual page without a warning.
func TestManualPage(t *testing.T) {
	page := filepath.Join(unpack(t, "linux-amd64"), "pixel-ping.1")
	cmd := exec.Command("man", "--warnings", "--encoding=UTF-8", "--local-file", page)
	cmd.Env = append(os.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8", "MANPAGER=cat")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil || stderr.String() != "" {
		t.Errorf("man: %v\n%s", err, &stderr)
	}
	for _, heading := range []string{"NAME", "SYNOPSIS", "DESCRIPTION", "CONFIGURATION", "SIGNALS", "EXIT STATUS"} {
		if !strings.Contains(stdout.String(), "\n"+heading+"\n") {
			t.Errorf("the page has no section %s:\n%s", heading, &stdout)
		}
	}
}
