package main

import (
	"os"
	"strings"
	"testing"

	"pixel-ping/testdata/conformance"
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
