package clickhouse

import (
	"fmt"
	"strings"
	"time"

	"tidegate/pipeline"
)

// An alertField ties one field of pipeline.Alert to one column of the tables of alerts. alertFields is the only
// list of them: the schema, the insert and the query read it, so that no two of them can disagree on the
// order.
type alertField struct {
	column tableColumn
	doc    string // line in docs/FIELDS.md
	// pointer returns a pointer to the field of a: the insert reads through it, the query scans into it.
	pointer func(a *pipeline.Alert) any
}

// alertFields is the list of alert columns in the order of the table. A new field of pipeline.Alert is one
// row here.
var alertFields = []alertField{
	{
		alertColumn("id", "String"), "Identity of the alert: one rule, one group and one window of time.",
		func(a *pipeline.Alert) any { return &a.ID },
	},
	{
		alertColumn("revision", "UInt64"), "Number of the newest revision. It grows with each match.",
		func(a *pipeline.Alert) any { return &a.Revision },
	},
	{
		alertColumn("fingerprint", "String"), "Hash of rule and group. Alertmanager has it as a label.",
		func(a *pipeline.Alert) any { return &a.Fingerprint },
	},
	{
		alertColumn("detector", "LowCardinality(String)"), "What found it: rules, feeds or classifier.",
		func(a *pipeline.Alert) any { return &a.Detector },
	},
	{
		alertColumn("rule", "LowCardinality(String)"), "Id of the rule.",
		func(a *pipeline.Alert) any { return &a.Rule },
	},
	{
		alertColumn("version", "LowCardinality(String)"), "Version of the rules, the feed or the model.",
		func(a *pipeline.Alert) any { return &a.Version },
	},
	{
		alertColumn("title", "String"), "Title of the rule.",
		func(a *pipeline.Alert) any { return &a.Title },
	},
	{
		alertColumn("severity", "LowCardinality(String)"), "info, low, medium, high or critical. It sorts in this order: `ORDER BY severity DESC`, `severity >= 'high'`.",
		func(a *pipeline.Alert) any { return &a.Severity },
	},
	{
		alertColumn("tags", "Array(LowCardinality(String))"), "ATT&CK techniques and other tags of the rule.",
		func(a *pipeline.Alert) any { return &a.Tags },
	},
	{
		alertColumn("group", "String"), "Fields by which the rule groups events, with their values: container.id=4f2a source.ip=10.0.0.1.",
		func(a *pipeline.Alert) any { return &a.Group },
	},
	{
		alertColumn("score", "UInt32"), "Highest confidence of the matches, 0 to 100.",
		func(a *pipeline.Alert) any { return &a.Score },
	},
	{
		alertColumn("evidence", "String"), "What the newest match was, for a person.",
		func(a *pipeline.Alert) any { return &a.Evidence },
	},
	{
		alertColumn("window_start", "DateTime64(9, 'UTC')"), "Start of the window: time of the match that opened the alert.",
		func(a *pipeline.Alert) any { return &a.WindowStart },
	},
	{
		alertColumn("first", "DateTime64(9, 'UTC')"), "Earliest time (`@timestamp`) of the matching events.",
		func(a *pipeline.Alert) any { return &a.First },
	},
	{
		alertColumn("last", "DateTime64(9, 'UTC')"), "Latest time of the matching events.",
		func(a *pipeline.Alert) any { return &a.Last },
	},
	{
		alertColumn("count", "UInt64"), "Number of matches; of a rule over several events, the number of their events, 0 if it matched because there were none.",
		func(a *pipeline.Alert) any { return &a.Count },
	},
	{
		alertColumn("event_id", "String"), "`event.id` of the event that opened the alert.",
		func(a *pipeline.Alert) any { return &a.EventID },
	},
	{
		alertColumn("events", "Array(String)"), "Of a rule over several events, the first 20 of them: the step that each matches, if the rule names it, and its `event.id`.",
		func(a *pipeline.Alert) any { return &a.Events },
	},
	{
		alertColumn("dataset", "LowCardinality(String)"), "`event.dataset` of that event, and so on for the columns that follow.",
		func(a *pipeline.Alert) any { return &a.Dataset },
	},
	{
		alertColumn("host", "LowCardinality(String)"), "Host.",
		func(a *pipeline.Alert) any { return &a.Host },
	},
	{
		alertColumn("cluster", "LowCardinality(String)"), "Cluster of the host.",
		func(a *pipeline.Alert) any { return &a.Cluster },
	},
	{
		alertColumn("container_id", "LowCardinality(String)"), "Id of the container; empty for the host.",
		func(a *pipeline.Alert) any { return &a.ContainerID },
	},
	{
		alertColumn("container_name", "LowCardinality(String)"), "Name of the container.",
		func(a *pipeline.Alert) any { return &a.ContainerName },
	},
	{
		alertColumn("image", "LowCardinality(String)"), "Image of the container.",
		func(a *pipeline.Alert) any { return &a.Image },
	},
	{
		alertColumn("source", "String"), "Address and port of the client.",
		func(a *pipeline.Alert) any { return &a.Source },
	},
	{
		alertColumn("destination", "String"), "Address and port of the server.",
		func(a *pipeline.Alert) any { return &a.Destination },
	},
	{
		alertColumn("demo", "Bool"), "The event is one of the demo.",
		func(a *pipeline.Alert) any { return &a.Demo },
	},
	{
		alertColumn("topic", "LowCardinality(String)"), "Topic of the signals that the engines write for matches; of alerts of earlier versions, of the events.",
		func(a *pipeline.Alert) any { return &a.Topic },
	},
	{
		alertColumn("partition", "Int32"), "Partition of the topic.",
		func(a *pipeline.Alert) any { return &a.Partition },
	},
	{
		alertColumn("offset", "Int64"), "Offset of the message with the newest match.",
		func(a *pipeline.Alert) any { return &a.Offset },
	},
	{
		alertColumn("ingested", "DateTime64(9, 'UTC')"), "Time at which the engine read the block with the newest match.",
		func(a *pipeline.Alert) any { return &a.Ingested },
	},
}

// alertColumn returns the column of a type with the codec that the table uses for it.
func alertColumn(name, kind string) tableColumn {
	col := tableColumn{name: name, kind: kind}
	switch {
	case strings.HasPrefix(kind, "DateTime64"):
		col.codec = "Delta, ZSTD(1)"
	case kind != "Bool" && !strings.Contains(kind, "LowCardinality"):
		col.codec = "ZSTD(1)"
	}
	return col
}

// alertTableColumns returns the columns of the tables of alerts: the fields of an alert and the time at which the
// row was stored.
func alertTableColumns() []tableColumn {
	var columns []tableColumn
	for _, field := range alertFields {
		columns = append(columns, field.column)
	}
	return append(columns, tableColumn{
		name: "stored", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)", codec: "Delta, ZSTD(1)",
	})
}

// newAlertBlock returns the columns of alerts, one row an alert.
func newAlertBlock(alerts []*pipeline.Alert) *ColumnBlock {
	block := &ColumnBlock{rows: len(alerts)}
	for _, field := range alertFields {
		col, appendAlert := newAlertColumn(field)
		for row, alert := range alerts {
			appendAlert(alert, row)
		}
		block.columns = append(block.columns, blockColumn{tableColumn: field.column, column: col})
	}
	return block
}

// newAlertColumn returns an empty column for field and the function that appends an alert's value to it. A
// field whose Go type does not fit its ClickHouse type is a mistake in alertFields, which
// TestEveryAlertFieldComesBack finds.
func newAlertColumn(field alertField) (column, func(a *pipeline.Alert, row int)) {
	kind := field.column.kind
	switch field.pointer(&pipeline.Alert{}).(type) {
	case *string:
		col := newStringColumn(kind)
		return col, func(a *pipeline.Alert, row int) { col.putString(row, *field.pointer(a).(*string)) }
	case *[]string:
		elementKind := strings.TrimSuffix(strings.TrimPrefix(kind, "Array("), ")")
		col := &arrayColumn{ends: fixedColumn{width: 8}, strings: newStringColumn(elementKind)}
		return col, func(a *pipeline.Alert, row int) { col.putStrings(row, *field.pointer(a).(*[]string)) }
	}

	width, _, _ := numberType(kind)
	col := &fixedColumn{width: width}
	return col, func(a *pipeline.Alert, row int) { col.putUint(row, alertNumber(field.pointer(a))) }
}

// alertNumber returns the bits of a number, flag or time as its column keeps them. The zero time is 0.
func alertNumber(field any) uint64 {
	switch v := field.(type) {
	case *uint32:
		return uint64(*v)
	case *uint64:
		return *v
	case *int32:
		return uint64(uint32(*v))
	case *int64:
		return uint64(*v)
	case *bool:
		if *v {
			return 1
		}
		return 0
	case *time.Time:
		if v.IsZero() {
			return 0
		}
		return uint64(v.UnixNano())
	}
	panic(fmt.Sprintf("alertFields: no column keeps a %T", field))
}
