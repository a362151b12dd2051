package clickhouse

import (
	"fmt"
	"strings"

	"tidegate/pipeline"
)

// FieldsMarkdown is docs/FIELDS.md: every field with its type, column and meaning.
func FieldsMarkdown() string {
	var b strings.Builder
	b.WriteString(`# Fields

Generated from pipeline.Fields (` + "`go test ./pipeline/clickhouse -update`" + `); a test fails when it is stale.

A field is named as in ECS, or, where ECS has none, ` + "`<protocol>.<word of its specification>`" + `. The same name is used in rules, in
` + "`tidegate replay -o jsonl`" + ` (nested) and in ClickHouse's table ` + "`events`" + `, where it needs no quotes: ` + "`SELECT source.ip, dns.question.name FROM tidegate.events`" + `
(only ` + "`@timestamp`" + ` does). What an event does not say is "", 0, false or an empty list.

ClickHouse reads dotted array columns with one prefix as lists of equal length, so a list is stored without dots where it stands alone; its
dotted name is an alias, which ` + "`SELECT *`" + ` leaves out.
`)
	bodies := []pipeline.Dataset{pipeline.Dataset_DATASET_NONE}
	for d := range pipeline.Datasets[1:] {
		bodies = append(bodies, pipeline.Dataset(d+1))
	}
	for _, body := range bodies {
		writeFields(&b, body)
	}
	b.WriteString("\n## Where a row came from\n\nNot fields of the event: rules do not see them.\n\n| column | type | meaning |\n|---|---|---|\n")
	for i, doc := range []string{
		"Kafka topic.", "Its partition.", "Offset of the message, which holds many events.", "Place within the message, from 0.",
		"The collector's identity, drawn once per state folder.", "Epoch: drawn at random at each start of the collector, one for logs and one for packets.", "Number of the batch, per collector, life and partition.",
	} {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", positionColumns[i].name, positionColumns[i].kind, doc)
	}
	return b.String()
}

func writeFields(b *strings.Builder, body pipeline.Dataset) {
	title, any := "Of every event", false
	if body != pipeline.Dataset_DATASET_NONE {
		title = "Of `" + body.Name() + "`"
	}
	for i := range pipeline.Fields {
		f := &pipeline.Fields[i]
		if f.Body != body {
			continue
		}
		if !any {
			fmt.Fprintf(b, "\n## %s\n\n| field | in rules | ClickHouse type | stored as | meaning |\n|---|---|---|---|---|\n", title)
			any = true
		}
		stored := ""
		if f.Column.Name != f.Name {
			stored = "`" + f.Column.Name + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", f.Name, ruleType(f), f.Column.Type, stored, strings.ReplaceAll(f.Doc, "|", `\|`))
	}
}

func ruleType(f *pipeline.Field) string {
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
