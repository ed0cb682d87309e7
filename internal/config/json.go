package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// object decodes a JSON object. It also returns the names that the object has
// more than once: as in JavaScript, the last value counts. An error about JSON's
// syntax names the line and the column, and says what to do.
func object(text []byte) (values map[string]any, repeated []string, err error) {
	const unmarked = "save it as UTF-8 without a byte order mark"
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, nil, errors.New("the file is empty")
	case bytes.HasPrefix(text, []byte("\xEF\xBB\xBF")):
		return nil, nil, errors.New("the file begins with a byte order mark; " + unmarked)
	// UTF-16 begins with a mark, or has a zero byte beside its first character.
	case bytes.HasPrefix(text, []byte("\xFF\xFE")), bytes.HasPrefix(text, []byte("\xFE\xFF")),
		bytes.IndexByte(text[:min(2, len(text))], 0) >= 0:
		return nil, nil, errors.New("the file is UTF-16; " + unmarked)
	}
	// The check comes first, because Decoder's errors do not say where in the
	// whole text they are.
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, nil, located(text, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // The text may have a number that is too large for a float64.
	first, err := decoder.Token()
	if err != nil {
		return nil, nil, err
	}
	if first != json.Delim('{') {
		return nil, nil, fmt.Errorf("want a JSON object (got %s)", kindOf(first))
	}
	values = make(map[string]any)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, nil, err
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, nil, err
		}
		name := token.(string)
		if _, known := values[name]; known && !slices.Contains(repeated, name) {
			repeated = append(repeated, name)
		}
		values[name] = value
	}
	return values, repeated, nil
}

// located adds the line and the column, in characters from 1, to a syntax error.
// The usual mistakes have messages of their own, which say what to do. So do the
// errors that Go 1.26 and 1.27 word differently.
func located(text []byte, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return err
	}
	message := syntax.Error()
	at := max(int(syntax.Offset)-1, 0)
	// Go 1.26 counts to the first byte of a character, 1.27 to the last one.
	for at > 0 && !utf8.RuneStart(text[at]) {
		at--
	}
	rest, before := text[at:], bytes.TrimSpace(text[:at])
	switch char, _ := utf8.DecodeRune(rest); {
	case strings.HasPrefix(message, "unexpected end"):
		at = len(text)
		message = "the file ends inside of the JSON text; a quote, bracket or brace is not closed"
	case bytes.HasPrefix(rest, []byte("//")), bytes.HasPrefix(rest, []byte("/*")), char == '#':
		message = "JSON has no comments; remove this one"
	case (char == '}' || char == ']') && bytes.HasSuffix(before, []byte(",")):
		at = bytes.LastIndexByte(text[:at], ',')
		message = "JSON has no comma after the last value; remove this one"
	case strings.Contains(message, "escape"):
		at = bytes.LastIndexByte(text[:syntax.Offset], '\\')
		message = `invalid escape sequence in a string; a backslash is written \\`
	case strings.Contains(message, "in string") && (char == '\n' || char == '\r'):
		message = "the string has no closing quote on its line"
	case strings.Contains(message, "in string"):
		message = fmt.Sprintf("invalid character %q in a string; write it as \\u%04x", char, char)
	case strings.ContainsRune("'‘’“”„`", char):
		message = fmt.Sprintf(`text has double quotes; write " in place of %c`, char)
	case strings.ContainsRune(",}]", char) && strings.HasSuffix(message, "beginning of value"):
		message = "a value is missing before this"
	case char == '"' && strings.HasSuffix(message, "after object key"):
		message = "a colon is missing before this"
	case char == '"' && strings.Contains(message, " after "):
		message = "a comma is missing before this"
	case strings.HasSuffix(message, "beginning of object key string") && len(word.Find(rest)) > 0:
		message = fmt.Sprintf("a name has double quotes; write %q", word.Find(rest))
	case char < utf8.RuneSelf && unicode.IsLetter(char) && len(before) > 0 && !strings.Contains(message, " after "):
		for at > 0 && word.Match(text[at-1:at]) {
			at-- // to the beginning of a word that begins as true, false and null do
		}
		message = instead(string(word.Find(text[at:])))
	case char >= utf8.RuneSelf:
		message = fmt.Sprintf("invalid character %q outside of a string", char)
	}
	line := bytes.Count(text[:at], []byte("\n")) + 1
	column := utf8.RuneCount(text[bytes.LastIndexByte(text[:at], '\n')+1:at]) + 1
	return fmt.Errorf("line %d, column %d: %s", line, column, message)
}

// word matches a word that stands where JSON has none.
var word = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*`)

// instead says what to write in place of a word that stands where a value should be. It
// does not show the word, which may be a secret.
func instead(word string) string {
	switch lower := strings.ToLower(word); lower {
	case "true", "false", "null":
		return "write " + lower + ", in small letters"
	case "none":
		return "write null"
	}
	return "text has double quotes; write them before and after this"
}

// A kind describes a value. Errors show it in place of a value that may be a secret.
type kind string

func kindOf(value any) kind {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case string:
		return "a string"
	case json.Number:
		return "a number"
	case []any, json.Delim: // Of delimiters only '[' comes here.
		return "an array"
	}
	return "an object"
}
