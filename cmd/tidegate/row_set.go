package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A rowSet is the result of a query: the names of its columns and, a row each, their values as JSON.
type rowSet struct {
	names  []string
	values [][]json.RawMessage
}

// maxRowBytes bounds the result of queryRows and queryJSON.
const maxRowBytes = 64 << 20

// queryRows runs a query and returns its result.
func queryRows(ctx context.Context, cfg *Config, sql string) (*rowSet, error) {
	decoder, err := queryJSON(ctx, cfg, sql, "JSONCompactEachRowWithNames")
	if err != nil {
		return nil, err
	}
	rows := &rowSet{}
	if err := decoder.Decode(&rows.names); err != nil {
		return nil, fmt.Errorf("read the names of the columns of a query: %w", err)
	}
	for decoder.More() {
		var row []json.RawMessage
		if err := decoder.Decode(&row); err != nil {
			return nil, fmt.Errorf("read row %d of a query: %w", len(rows.values)+1, err)
		}
		if len(row) != len(rows.names) {
			return nil, fmt.Errorf("read row %d of a query: %d columns instead of %d",
				len(rows.values)+1, len(row), len(rows.names))
		}
		rows.values = append(rows.values, row)
	}
	return rows, nil
}

// queryJSON runs a query and returns its result, at most maxRowBytes, in one of ClickHouse's formats of JSON.
// Times are those of RFC 3339, and integers of 64 bits are numbers.
func queryJSON(ctx context.Context, cfg *Config, sql, format string) (*json.Decoder, error) {
	var out limitedBuffer
	sql += " SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0," +
		" output_format_json_escape_forward_slashes = 0"
	if err := queryStore(ctx, cfg, sql, format, &out); err != nil {
		return nil, err
	}
	return json.NewDecoder(&out.Buffer), nil
}

// A limitedBuffer is a buffer for at most maxRowBytes.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(data []byte) (int, error) {
	if b.Len()+len(data) > maxRowBytes {
		return 0, fmt.Errorf("the result is larger than %d bytes", maxRowBytes)
	}
	return b.Buffer.Write(data)
}

// text returns a value of a row as text, "" if there is no such column.
func (s *rowSet) text(row []json.RawMessage, name string) string {
	i := slices.Index(s.names, name)
	if i < 0 {
		return ""
	}
	return valueText(row[i])
}

// printSet prints a line for each value of a row that is set.
func (s *rowSet) printSet(out io.Writer, row []json.RawMessage) {
	width := 0
	for i, name := range s.names {
		if isSet(row[i]) {
			width = max(width, len(name))
		}
	}
	for i, name := range s.names {
		if isSet(row[i]) {
			_, _ = fmt.Fprintf(out, "%-*s  %s\n", width, name, strings.ReplaceAll(valueText(row[i]), "\n", `\n`))
		}
	}
}

// isSet reports whether a value is another one than that of an absent field.
func isSet(value json.RawMessage) bool {
	switch text := string(value); text {
	case `""`, "0", "false", "[]", "{}", "null":
		return false
	default:
		return !strings.HasPrefix(text, `"1970-01-01T00:00:00`)
	}
}

// valueText returns a value as a person reads it: texts without quotes.
func valueText(value json.RawMessage) string {
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text
	}
	return string(value)
}
