package pipeline

import (
	"fmt"
	"strings"
)

// A PositionColumn documents a column of stored events that is not a field.
type PositionColumn struct{ Name, Type, Doc string }

// FieldsMarkdown returns the text of docs/FIELDS.md: the datasets, every field with its type, column and
// meaning, and the columns of the position at which a row was read.
func FieldsMarkdown(positions []PositionColumn) string {
	var out strings.Builder
	out.WriteString(`# Fields

Generated from pipeline.Fields and pipeline.Datasets (` + "`make golden`" + `); a test fails when it is stale.

A field is named as in ECS, or, where ECS has none, ` + "`<protocol>.<word of its specification>`" + `. The same name is used in rules, in
` + "`tidegate replay -o jsonl`" + ` (nested) and in ClickHouse's table ` + "`events`" + `, where it needs no quotes: ` + "`SELECT source.ip, dns.question.name FROM tidegate.events`" + `
(only ` + "`@timestamp`" + ` does). An absent field is "", 0, false or an empty list.

ClickHouse reads dotted array columns with one prefix as lists of equal length, so a list that stands alone is stored under a name without
dots. Its dotted name is an alias, which ` + "`SELECT *`" + ` leaves out.

| dataset | one event is |
|---|---|
`)
	for d := range Datasets[1:] {
		info := &Datasets[d+1]
		fmt.Fprintf(&out, "| `%s` | %s |\n", info.Name, info.Doc)
	}
	for d := range Datasets {
		writeFields(&out, Dataset(d))
	}
	out.WriteString("\n## Where a row was read from\n\nThese columns are not fields of the event: rules cannot read them.\n\n" +
		"| column | type | meaning |\n|---|---|---|\n")
	for _, column := range positions {
		fmt.Fprintf(&out, "| `%s` | %s | %s |\n", column.Name, column.Type, column.Doc)
	}
	return out.String()
}

// writeFields writes the section for the fields in the body of a dataset, or for the fields of every event.
// It writes nothing if there are none.
func writeFields(out *strings.Builder, body Dataset) {
	title := "Of every event"
	if body != Dataset_DATASET_NONE {
		title = "Of `" + body.Name() + "`"
	}
	titleWritten := false
	for i := range Fields {
		field := &Fields[i]
		if field.Body != body {
			continue
		}
		if !titleWritten {
			fmt.Fprintf(out, "\n## %s\n\n"+
				"| field | in rules | ClickHouse type | stored as | meaning |\n|---|---|---|---|---|\n", title)
			titleWritten = true
		}
		stored := ""
		if field.Column.Name != field.Name {
			stored = "`" + field.Column.Name + "`"
		}
		doc := strings.ReplaceAll(field.Doc, "|", `\|`)
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", field.Name, field.ruleType(), field.Column.Type, stored, doc)
	}
}

// ruleType returns the name of the field's type in rules.
func (f *Field) ruleType() string {
	switch {
	case f.Str != nil:
		return "text"
	case f.Num != nil:
		return "number"
	case f.Flag != nil:
		return "flag"
	case f.Time != nil:
		return "time"
	case f.IP != nil:
		return "address"
	case f.Raw != nil:
		return "bytes"
	case f.Strs != nil:
		return "list of texts"
	case f.Nums != nil:
		return "list of numbers"
	}
	return "labels"
}
