package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// IsEventLine reports whether text begins with an event as a JSON object: as AppendJSON writes it, or as a row of
// the table events in ClickHouse (`SELECT *` in the format JSONEachRow). A line of a log that quotes an event is
// none, nor is the JSON of another program.
func IsEventLine(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 || text[0] != '{' {
		return false
	}
	if end := bytes.IndexByte(text, '\n'); end >= 0 {
		text = text[:end]
	}
	return rowID.Match(text) && rowDataset.Match(text) || nestedEvent.Match(text)
}

// Other programs write blanks behind colons and commas.
var (
	rowID      = regexp.MustCompile(`[{,]\s*"event\.id"\s*:`)
	rowDataset = regexp.MustCompile(`[{,]\s*"event\.dataset"\s*:`)
	// nestedEvent matches the beginning of the object event with id and dataset, in any order.
	nestedEvent = regexp.MustCompile(`[{,]\s*"event"\s*:\s*\{[^{}]*"id"\s*:\s*"[0-9a-f-]{36}"[^{}]*"dataset"\s*:\s*"|` +
		`[{,]\s*"event"\s*:\s*\{[^{}]*"dataset"\s*:\s*"[^{}]*"id"\s*:\s*"[0-9a-f-]{36}"`)
)

// FromEventLine returns the event of a line that IsEventLine recognizes. Verdicts are left out: they are those of
// the rules of that time.
func FromEventLine(line []byte) (*Event, error) {
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	if fields, ok := FieldsOfRow(object); ok {
		object = fields
	}
	delete(object, "verdict")
	return FromMap(object)
}

// FieldsOfRow returns the fields of a row of the table events. A row has the columns of all datasets, with zero
// values where the event has no value, columns of its own (_offset), and other names for lists (dns_answers_data).
// Verdicts are left out. It returns false for an object that is no row, because event.dataset is nested.
func FieldsOfRow(row map[string]any) (map[string]any, bool) {
	dataset, ok := row["event.dataset"].(string)
	if !ok {
		return nil, false
	}
	fields := map[string]any{}
	for column, value := range row {
		field := Lookup(column)
		if field == nil {
			field = fieldsByColumn[column]
		}
		switch {
		case field == nil || isZeroValue(value) || strings.HasPrefix(field.Name, "verdict."):
			continue
		case field.Body != Dataset_DATASET_NONE && field.Body.Name() != dataset:
			continue
		}
		if text, ok := value.(string); ok {
			value = valueOfText(field, text)
		}
		fields[field.Name] = value
	}
	return fields, true
}

// fieldsByColumn finds the fields whose columns have underscores in place of dots.
var fieldsByColumn = func() map[string]*Field {
	out := map[string]*Field{}
	for i := range Fields {
		out[strings.ReplaceAll(Fields[i].Name, ".", "_")] = &Fields[i]
	}
	return out
}()

// storedTime is the form of a DateTime64 in ClickHouse.
var storedTime = regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$`)

// valueOfText returns a value that ClickHouse writes as text as Field.Set takes it: times have another form, and
// numbers of 64 bits may be quoted.
func valueOfText(field *Field, text string) any {
	switch {
	case field.Time != nil && storedTime.MatchString(text):
		return strings.Replace(text, " ", "T", 1) + "Z"
	case field.Num != nil:
		return json.Number(text)
	}
	return text
}

// isZeroValue reports whether a value of a row stands for an absent one.
func isZeroValue(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case bool:
		return !value
	case string:
		return strings.Trim(value, "0-: .") == "" || strings.HasPrefix(value, "1970-01-01 00:00:00")
	case json.Number:
		return value == "0"
	case int64:
		return value == 0
	case []any:
		return len(value) == 0
	case map[string]any:
		return len(value) == 0
	}
	return false
}
