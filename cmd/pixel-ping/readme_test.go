package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"pixel-ping/internal/rig/conformance"
)

func TestReadmeListsEachDifference(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(readme), "\n## Differences from 0.1.6\n")
	table, _, _ = strings.Cut(table, "\n\n`make conformance`")
	var want strings.Builder
	want.WriteString("\n| | 0.1.6 | here | why |\n| --- | --- | --- | --- |\n")
	for _, d := range conformance.Differences {
		want.WriteString("| " + d.Name + " | " + d.Original + " | " + d.Ours + " | " + d.Why + " |\n")
	}
	if table+"\n" != want.String() {
		t.Errorf("the table of the README is not that of the code, which is:\n%s", want.String())
	}
}

// A recipe of the README is a part of a file that a rig runs: the file that the
// paragraph before it links to. Sessions and the POST are shown by other tests.
func TestReadmeRecipesAreTheFilesThatAreTested(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\((testdata/[^)]+)\)`)
	parts := strings.Split(string(readme), "\n```") // text and blocks by turns
	recipes := 0
	for i := 1; i < len(parts); i += 2 {
		language, block, _ := strings.Cut(parts[i], "\n")
		if language == "console" || language == "http" {
			continue
		}
		recipes++
		paragraphs := strings.Split(strings.TrimSpace(parts[i-1]), "\n\n")
		links := link.FindAllStringSubmatch(paragraphs[len(paragraphs)-1], -1)
		if links == nil {
			t.Errorf("no file stands before the recipe:\n%s", block)
			continue
		}
		name := links[len(links)-1][1]
		file, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(file), block) {
			t.Errorf("%s does not have the recipe:\n%s", name, block)
		}
	}
	if recipes < 1 {
		t.Errorf("%d recipes were found", recipes)
	}
}
