package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pixel-ping/internal/config"
	"pixel-ping/internal/rig/conformance"
)

const top = "../.." // the repository

// readmes returns the text of each README by its path.
func readmes(t *testing.T) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	for _, pattern := range []string{"README.md", "testdata/recipes/*/README.md", "internal/rig/*/README.md"} {
		names, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			texts[name] = string(text)
		}
	}
	return texts
}

// The short table of differences has rows of the long one, to which the
// conformance tests hold the daemon: those that a migrating administrator needs.
func TestReadmeListsDifferences(t *testing.T) {
	short := conformance.Rows(readmes(t)[filepath.Join(top, "README.md")])
	for name, row := range short {
		if row != conformance.Differences[name] {
			t.Errorf("the long table does not have this row:\n%s", row)
		}
	}
	for _, name := range []string{"kept connections", "senseless settings", "port taken", "memory", "stop"} {
		if short[name] == "" {
			t.Errorf("the short table does not have the row %q", name)
		}
	}
}

// The README and the comment that becomes the manual page have each setting that the
// configuration takes, and no others.
func TestSettingsAreDocumented(t *testing.T) {
	all := func(file, begin, end, pattern string) []string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Fatal(err)
		}
		_, part, _ := strings.Cut(string(text), begin)
		part, _, _ = strings.Cut(part, end)
		var names []string
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(part, -1) {
			names = append(names, match[1:]...)
		}
		slices.Sort(names)
		return slices.DeleteFunc(names, func(name string) bool { return name == "" })
	}
	want := all("internal/config/config.go", "s := settings{", "validate()", `\bs\.[a-zA-Z]+\("([a-z]+)"`)
	for file, got := range map[string][]string{
		"README.md":              all("README.md", "| setting | type |", "\n\n", "(?m)^\\| `([a-z]+)`(?:, `([a-z]+)`)? \\|"),
		"cmd/pixel-ping/main.go": all("cmd/pixel-ping/main.go", "# Configuration", "# Signals", `(?m)^//\t([a-z]+) +\S`),
	} {
		if len(want) < 14 || !slices.Equal(got, want) {
			t.Errorf("%s has the settings %q, want %q", file, got, want)
		}
	}
}

// A reader sees the main README as a whole; long matter stands beside its recipe.
func TestReadmeIsShort(t *testing.T) {
	text := readmes(t)[filepath.Join(top, "README.md")]
	if lines, words := strings.Count(text, "\n"), len(strings.Fields(text)); lines > 230 || words > 2700 {
		t.Errorf("%d lines and %d words, want at most 230 and 2,700", lines, words)
	}
}

// A block of a README is a part of a file that a rig runs: the last file that the
// paragraph before the block links to. A configuration without such a file is
// parsed. Other tests cover sessions and the POST.
func TestReadmeRecipesAreTheFilesThatAreTested(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	recipes := make(map[string]int) // blocks by README
	for readme, text := range readmes(t) {
		parts := strings.Split(text, "\n```") // text and blocks by turns
		for i := 1; i < len(parts); i += 2 {
			language, block, _ := strings.Cut(parts[i], "\n")
			switch language {
			case "console", "http":
				continue
			case "json":
				recipes[readme]++
				if _, unknown, err := config.Parse(strings.NewReader(block)); err != nil || len(unknown) > 0 {
					t.Errorf("%s: unknown settings %q, error %v in:\n%s", readme, unknown, err, block)
				}
				continue
			}
			recipes[readme]++
			paragraphs := strings.Split(strings.TrimSpace(parts[i-1]), "\n\n")
			links := link.FindAllStringSubmatch(paragraphs[len(paragraphs)-1], -1)
			if links == nil {
				t.Errorf("%s: no file is named before the recipe:\n%s", readme, block)
				continue
			}
			name := filepath.Join(filepath.Dir(readme), links[len(links)-1][1])
			file, err := os.ReadFile(name)
			if err != nil {
				t.Error(err)
			} else if !strings.Contains(string(file), block) {
				t.Errorf("%s: %s does not have the recipe:\n%s", readme, name, block)
			}
		}
	}
	for _, name := range []string{"README.md", "testdata/recipes/django/README.md", "testdata/recipes/embed/README.md",
		"testdata/recipes/express/README.md",
		"testdata/recipes/journal/README.md", "testdata/recipes/nginx/README.md",
		"testdata/recipes/php/README.md", "testdata/recipes/prometheus/README.md", "testdata/recipes/rails/README.md",
		"testdata/recipes/stream/README.md", "testdata/recipes/systemd/README.md"} {
		if recipes[filepath.Join(top, name)] == 0 {
			t.Errorf("%s has no recipe", name)
		}
	}
}

// The session of make run begins with the address of the receiver's page, which make
// run prints first.
func TestReadmeOpensThePageOfTheReceiver(t *testing.T) {
	_, session, _ := strings.Cut(readmes(t)[filepath.Join(top, "README.md")], "\n$ make run\n")
	lines := strings.SplitN(session, "\n", 3)
	for name, want := range map[string]string{
		"internal/rig/run/main.go":            `fmt.Println("` + lines[1] + `")`,
		"testdata/recipes/receiver/main.go":   `"127.0.0.1:9188"`,
		"testdata/recipes/receiver/page.html": "<button ",
	} {
		file, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(file), want) {
			t.Errorf("%s does not contain %s", name, want)
		}
	}
	if !strings.HasPrefix(lines[1], "Open http://localhost:9188/ ") {
		t.Errorf("the session begins with %q", lines[1])
	}
}

// Each link to a file leads to one, and each link to a section to a heading.
func TestReadmeLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped := regexp.MustCompile(`[^\p{L}\p{N} -]`) // GitHub drops these from the anchor of a heading
	for readme, text := range readmes(t) {
		for _, parts := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(parts[1], "://") {
				continue
			}
			to := readme
			if parts[1] != "" {
				to = filepath.Join(filepath.Dir(readme), parts[1])
			}
			info, err := os.Stat(to)
			if err != nil {
				t.Errorf("%s: %v", readme, err)
				continue
			}
			if parts[2] == "" {
				continue
			}
			if info.IsDir() {
				to = filepath.Join(to, "README.md")
			}
			page, err := os.ReadFile(to)
			if err != nil {
				t.Errorf("%s: %v", readme, err)
				continue
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(page), -1), func(h []string) bool {
				return "#"+strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == parts[2]
			}) {
				t.Errorf("%s: %s has no section %s", readme, to, parts[2])
			}
		}
	}
}

// The README names the toolchain of go.mod.
func TestReadmeNamesTheToolchain(t *testing.T) {
	module, err := os.ReadFile(filepath.Join(top, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	toolchain := regexp.MustCompile(`(?m)^toolchain (go\S+)$`).FindStringSubmatch(string(module))
	if toolchain == nil {
		t.Fatal("go.mod names no toolchain")
	}
	if text := readmes(t)[filepath.Join(top, "README.md")]; !strings.Contains(text, toolchain[1]) {
		t.Errorf("the README does not name %s", toolchain[1])
	}
}

// The user postgres may not enter the home directory that a session is in, and
// PostgreSQL's commands complain about that: each leaves it first.
func TestReadmeSessionsLeaveTheHomeDirectoryForPostgres(t *testing.T) {
	sessions := 0
	for readme, text := range readmes(t) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "$") && strings.Contains(line, "sudo -u postgres") {
				sessions++
				if !strings.HasPrefix(line, "$ (cd / && ") {
					t.Errorf("%s: no cd / before sudo -u postgres: %s", readme, line)
				}
			}
		}
	}
	if sessions == 0 {
		t.Error("there is no such session")
	}
}
