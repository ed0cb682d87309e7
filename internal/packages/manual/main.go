// Manual prints the manual page of pixel-ping. Its source is the package comment
// of cmd/pixel-ping, so that the page and the comment cannot differ.
//
// Usage:
//
//	manual VERSION YYYY-MM-DD <cmd/pixel-ping/main.go >pixel-ping.1
package main

import (
	"fmt"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "Usage: manual VERSION YYYY-MM-DD <main.go >pixel-ping.1")
		os.Exit(1)
	}
	source, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = write(os.Stdout, source, os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

// summary is the first sentence of the comment, from which the page takes the
// section NAME.
var summary = regexp.MustCompile(`^Pixel-ping is ([^.]*)\.`)

// write writes the page in the language of man (roff). The block after "Usage:" is
// the section SYNOPSIS, what else stands before the first heading is DESCRIPTION,
// and each heading begins a section of its own.
func write(w io.Writer, source []byte, version, date string) error {
	file, err := parser.ParseFile(token.NewFileSet(), "main.go", source, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		return err
	}
	name := summary.FindStringSubmatch(file.Doc.Text())
	if name == nil {
		return fmt.Errorf("the package comment does not begin with what matches %q", summary)
	}

	var synopsis, sections strings.Builder
	usage := false // whether the last paragraph was "Usage:"
	gap := ""      // begins a paragraph that does not follow a heading
	const mark = ".PP\n"
	for _, block := range new(comment.Parser).Parse(file.Doc.Text()).Content {
		switch block := block.(type) {
		case *comment.Heading:
			fmt.Fprintf(&sections, ".SH %s\n", strings.ToUpper(plain(block.Text)))
			gap = ""
			continue
		case *comment.Paragraph:
			text := plain(block.Text)
			if usage = text == "Usage:"; !usage {
				sections.WriteString(gap + escape(text) + "\n")
			}
		case *comment.Code:
			switch {
			case usage:
				synopsis.WriteString(verbatim(block.Text))
			case definition.MatchString(block.Text):
				sections.WriteString(definitions(block.Text))
			default:
				sections.WriteString(gap + ".RS 4\n" + verbatim(block.Text) + ".RE\n")
			}
			usage = false
		default:
			return fmt.Errorf("the package comment has a %T, for which the manual page has no form", block)
		}
		gap = mark
	}
	_, err = fmt.Fprintf(w, ".TH PIXEL-PING 1 %s \"Pixel Ping %s\" \"User Commands\"\n"+
		".SH NAME\npixel\\-ping \\- %s\n.SH SYNOPSIS\n%s.SH DESCRIPTION\n%s",
		date, version, escape(name[1]), &synopsis, &sections)
	return err
}

// plain returns the words of a paragraph or a heading.
func plain(text []comment.Text) string {
	var b strings.Builder
	for _, part := range text {
		switch part := part.(type) {
		case comment.Plain:
			b.WriteString(string(part))
		case comment.Italic:
			b.WriteString(string(part))
		case *comment.Link:
			b.WriteString(plain(part.Text))
		case *comment.DocLink:
			b.WriteString(plain(part.Text))
		}
	}
	return b.String()
}

// escape returns text as man prints it unchanged: a backslash begins a command, a
// hyphen may become another character, and a line that begins with a period or an
// apostrophe is a command.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	return lineOfCommand.ReplaceAllString(text, `\&$0`)
}

var lineOfCommand = regexp.MustCompile("(?m)^[.']")

// verbatim keeps the lines of a block as they are.
func verbatim(block string) string {
	return ".nf\n" + escape(block) + ".fi\n"
}

// definition matches the first line of a block of definitions, such as
//
//	port           the port to listen on
//	interval       seconds between two
//	               flushes
var definition = regexp.MustCompile(`^\S+ {2,}\S`)

// definitions writes such a block as a list of terms.
func definitions(block string) string {
	var b strings.Builder
	for line := range strings.Lines(block) {
		if term, text, found := strings.Cut(line, " "); found && term != "" {
			fmt.Fprintf(&b, ".TP\n.B %s\n", escape(term))
			line = text
		}
		b.WriteString(escape(strings.TrimLeft(line, " ")))
	}
	return b.String()
}
