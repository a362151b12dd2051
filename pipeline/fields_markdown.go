package pipeline

import (
	"fmt"
	"strings"
)

// A DocumentedColumn is a column of the store that is not a field, with its meaning.
type DocumentedColumn struct{ Name, Type, Doc string }

// FieldsMarkdown returns the text of docs/FIELDS.md: the datasets, every field with its type, column and
// meaning, the columns of the position at which a row was read, and those of alerts.
func FieldsMarkdown(positions, alerts []DocumentedColumn) string {
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
	writeColumns(&out, "Where a row was read from", "These columns are not fields of the event: rules cannot read them.", positions)
	writeColumns(&out, "Alerts", "The view `alerts` has one row for each alert, as it is now. The table `alert_revisions` has a row for each of its revisions\n"+
		"of the last week, with the same columns; its `severity` is a text. The events of an alert:\n"+
		"`SELECT * FROM events WHERE \"@timestamp\" BETWEEN '<first>' AND '<last>' AND has(verdict.rule, '<rule>')`. A time as it\n"+
		"is in alerts that are sent is written `toDateTime64('2026-11-26T16:20:47.48Z', 9)`: ClickHouse compares no column with such a text.", alerts)
	out.WriteString("\n## Addresses in SQL\n\nAddresses are texts, and an absent one is \"\". The function `in_net(ip, cidr)` takes every text, " +
		"ClickHouse's own `isIPAddressInRange` only\naddresses: `SELECT count() FROM events WHERE in_net(source.ip, '172.16.0.0/12')`, and for a list " +
		"`arrayExists(ip -> in_net(ip, '10.0.0.0/8'),\ndns.resolved_ip)`. It belongs to the server, so that an engine creates it only where its user " +
		"may: `GRANT CREATE FUNCTION ON *.*`.\n")
	return out.String()
}

// writeColumns writes a section with a table of columns.
func writeColumns(out *strings.Builder, title, text string, columns []DocumentedColumn) {
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n| column | type | meaning |\n|---|---|---|\n", title, text)
	for _, column := range columns {
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", column.Name, column.Type, column.Doc)
	}
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
