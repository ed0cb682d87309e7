// Package conformance compares the daemon with the original, both running side by
// side. make conformance runs its tests: they need Node and the original.
package conformance

import (
	_ "embed"
	"strings"
)

//go:embed README.md
var readme string

// Differences has the table of README.md: the row of each thing that the daemon
// does in another way than the original on purpose, by its name. The tests accept
// these differences and no others.
var Differences = Rows(readme)

// notCompared says of some differences why the tests do not show them.
var notCompared = map[string]string{
	"endpoint that hangs":                              "it takes a minute",
	"settings that are there twice, further arguments": "the tests of cmd/pixel-ping and internal/config show it",
	"names with several addresses":                     "the machine may have one address",
	"renewed certificates":                             "make soak shows it",
	"zones of IPv6 addresses":                          "make e2e shows it",
	"authorities":                                      "make e2e shows it",
	"name servers without EDNS0":                       "make e2e shows it",
	"names that only modules of nsswitch know":         "it takes a module",
}

// Rows returns the rows of the table of differences in a README by their names.
func Rows(text string) map[string]string {
	_, table, _ := strings.Cut(text, "\n| | 0.1.6 | here | why |\n| --- | --- | --- | --- |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	rows := make(map[string]string)
	for row := range strings.Lines(table) {
		if cells := strings.Split(row, " | "); len(cells) == 4 {
			rows[strings.TrimPrefix(cells[0], "| ")] = strings.TrimSpace(row)
		}
	}
	return rows
}
