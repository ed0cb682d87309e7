package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// object decodes a JSON object. The error of a text that is not JSON says where.
func object(text []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, errors.New("the file is empty")
	}
	var value any
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, located(text, err)
	}
	// As json.Number, since a number may be written that no float64 can hold.
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	values, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want a JSON object (got %s)", kindOf(value))
	}
	return values, nil
}

// located adds the line and column, in characters from 1, to a syntax error.
func located(text []byte, err error) error {
	var syntax *json.SyntaxError
	if !errors.As(err, &syntax) {
		return err
	}
	before := text[:max(syntax.Offset-1, 0)]
	if strings.HasPrefix(syntax.Error(), "unexpected end") {
		before = text
	}
	line := bytes.Count(before, []byte("\n")) + 1
	column := utf8.RuneCount(before[bytes.LastIndexByte(before, '\n')+1:]) + 1
	return fmt.Errorf("line %d, column %d: %w", line, column, err)
}

// A kind says what a value is, in the place of the value.
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
	case []any:
		return "an array"
	}
	return "an object"
}
