package clickhouse

import (
	"fmt"
	"strings"

	"tidegate/pipeline"
)

// A tableColumn is one column of a table as it is created.
type tableColumn struct {
	name, kind, codec, expr string // expr: an ALIAS or DEFAULT with what it is
}

func (c tableColumn) String() string {
	s := quote(c.name) + " " + c.kind
	if c.expr != "" {
		s += " " + c.expr
	}
	if c.codec != "" {
		s += " CODEC(" + c.codec + ")"
	}
	return s
}

// position are the columns of events that are not fields: where a row was read from. They are the audit, the memory of what is
// already there, and what the engine's reader drops repeats by.
var position = []tableColumn{
	{name: "_topic", kind: "LowCardinality(String)"},
	{name: "_partition", kind: "Int32", codec: "ZSTD(1)"},
	{name: "_offset", kind: "Int64", codec: "Delta, ZSTD(1)"},
	{name: "_index", kind: "UInt32", codec: "T64, ZSTD(1)"},
	{name: "_collector", kind: "UUID", codec: "ZSTD(1)"},
	{name: "_boot", kind: "UInt64", codec: "ZSTD(1)"},
	{name: "_sequence", kind: "UInt64", codec: "Delta, ZSTD(1)"},
}

// eventColumns are the stored columns of events, in the order of the table, and then the aliases.
func eventColumns() (stored, aliases []tableColumn) {
	for i := range pipeline.Fields {
		f := &pipeline.Fields[i]
		c := f.Column
		stored = append(stored, tableColumn{name: c.Name, kind: c.Type, codec: c.Codec})
		if c.Name == f.Name {
			continue
		}
		kind, expr := c.Type, quote(c.Name)
		if c.Alias != "" {
			kind, expr = "String", c.Alias
		}
		aliases = append(aliases, tableColumn{name: f.Name, kind: kind, expr: "ALIAS " + expr})
	}
	return append(stored, position...), aliases
}

// An index lets a question skip granules. Each costs at every insert and every merge, so it is here for a question that is asked.
type index struct{ name, on, kind string }

var eventIndexes = []index{
	{"at", "`@timestamp`", "minmax GRANULARITY 1"},                   // a window of event time: every page
	{"position", "(_partition, _offset)", "minmax GRANULARITY 1"},    // Held, HighestOffset, Stamps
	{"judged", "notEmpty(`verdict.rule`)", "set(2) GRANULARITY 1"},   // "what was found"
	{"id", "`event.id`", "bloom_filter(0.01) GRANULARITY 1"},         // from an alert to its event
	{"source_ip", "`source.ip`", "bloom_filter(0.01) GRANULARITY 4"}, // who talked to …
	{"destination_ip", "`destination.ip`", "bloom_filter(0.01) GRANULARITY 4"},
	{"container", "`container.id`", "bloom_filter(0.01) GRANULARITY 4"},
	{"question", "`dns.question.name`", "bloom_filter(0.01) GRANULARITY 4"},
	{"domain", "`url.domain`", "bloom_filter(0.01) GRANULARITY 4"},
	{"message", "`message`", textIndex}, // hasToken(message, 'timeout')
}

// textIndex finds words in log lines; servers that do not have it yet get oldTextIndex, which reads more.
const (
	textIndex    = "text(tokenizer = 'splitByNonAlpha')"
	oldTextIndex = "tokenbf_v1(8192, 3, 0) GRANULARITY 4"
)

var alertColumns = []tableColumn{
	{name: "id", kind: "String", codec: "ZSTD(1)"},
	{name: "revision", kind: "UInt64", codec: "ZSTD(1)"},
	{name: "fingerprint", kind: "String", codec: "ZSTD(1)"},
	{name: "detector", kind: "LowCardinality(String)"},
	{name: "rule", kind: "LowCardinality(String)"},
	{name: "version", kind: "LowCardinality(String)"},
	{name: "title", kind: "String", codec: "ZSTD(1)"},
	{name: "severity", kind: "LowCardinality(String)"},
	{name: "tags", kind: "Array(LowCardinality(String))"},
	{name: "group", kind: "String", codec: "ZSTD(1)"},
	{name: "score", kind: "UInt32", codec: "ZSTD(1)"},
	{name: "evidence", kind: "String", codec: "ZSTD(1)"},
	{name: "window_start", kind: "DateTime64(9, 'UTC')", codec: "Delta, ZSTD(1)"},
	{name: "first", kind: "DateTime64(9, 'UTC')", codec: "Delta, ZSTD(1)"},
	{name: "last", kind: "DateTime64(9, 'UTC')", codec: "Delta, ZSTD(1)"},
	{name: "count", kind: "UInt64", codec: "ZSTD(1)"},
	{name: "event_id", kind: "String", codec: "ZSTD(1)"},
	{name: "dataset", kind: "LowCardinality(String)"},
	{name: "host", kind: "LowCardinality(String)"},
	{name: "cluster", kind: "LowCardinality(String)"},
	{name: "container_id", kind: "LowCardinality(String)"},
	{name: "container_name", kind: "LowCardinality(String)"},
	{name: "image", kind: "LowCardinality(String)"},
	{name: "source", kind: "String", codec: "ZSTD(1)"},
	{name: "destination", kind: "String", codec: "ZSTD(1)"},
	{name: "demo", kind: "Bool"},
	{name: "partition", kind: "Int32", codec: "ZSTD(1)"},
	{name: "offset", kind: "Int64", codec: "ZSTD(1)"}, // pipeline.Alert.Offset: AlertsBefore, by which the fold resumes
	{name: "stored", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)", codec: "Delta, ZSTD(1)"},
}

var noteColumns = []tableColumn{
	{name: "id", kind: "String", codec: "ZSTD(1)"},
	{name: "at", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)"},
	{name: "who", kind: "LowCardinality(String)"},
	{name: "status", kind: "LowCardinality(String)"},
	{name: "comment", kind: "String", codec: "ZSTD(1)"},
}

var versionColumns = []tableColumn{
	{name: "version", kind: "UInt32"},
	{name: "what", kind: "String"},
	{name: "at", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)"},
}

// A table is what CREATE TABLE needs to know.
type table struct {
	name      string
	columns   []tableColumn
	aliases   []tableColumn
	indexes   []index
	engine    string // without its arguments' replicated part
	order     string
	partition string
	ttl       string // the column that it counts from
	days      int
	window    bool // of deduplication tokens
}

func tables(cfg Config) []table {
	stored, aliases := eventColumns()
	return []table{
		{name: "schema_versions", columns: versionColumns, engine: "MergeTree", order: "version", window: true},
		{
			name: "events", columns: stored, aliases: aliases, indexes: eventIndexes, engine: "MergeTree",
			order:     "(`event.dataset`, toStartOfMinute(`@timestamp`), `host.name`, `@timestamp`)",
			partition: "toYYYYMMDD(`event.ingested`)", ttl: "event.ingested", days: cfg.TTLDays, window: true,
		},
		{name: "alerts", columns: alertColumns, engine: "ReplacingMergeTree", order: "(id, revision)", ttl: "stored", days: cfg.AlertTTLDays, window: true},
		{name: "alert_notes", columns: noteColumns, engine: "MergeTree", order: "(id, at)"},
	}
}

// DDL is the whole schema as statements, in order, as Migrate would run them on an empty server with the default configuration.
// deploy/schema.sql is the same, checked in.
func DDL() []string { return ddl(Default()) }

func ddl(cfg Config) []string {
	out := []string{"CREATE DATABASE IF NOT EXISTS " + quote(cfg.Database) + cfg.onCluster()}
	for _, t := range tables(cfg) {
		out = append(out, t.create(cfg))
	}
	return append(out, view(cfg))
}

func (t table) create(cfg Config) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE IF NOT EXISTS %s%s\n(\n", cfg.table(t.name), cfg.onCluster())
	var lines []string
	for _, c := range t.columns {
		lines = append(lines, "    "+c.String())
	}
	for _, c := range t.aliases {
		lines = append(lines, "    "+c.String())
	}
	for _, x := range t.indexes {
		lines = append(lines, fmt.Sprintf("    INDEX %s %s TYPE %s", x.name, x.on, x.kind))
	}
	b.WriteString(strings.Join(lines, ",\n"))
	fmt.Fprintf(&b, "\n)\nENGINE = %s\n", cfg.engine(t.engine))
	if t.partition != "" {
		fmt.Fprintf(&b, "PARTITION BY %s\n", t.partition)
	}
	fmt.Fprintf(&b, "ORDER BY %s\n", t.order)
	if t.days > 0 {
		fmt.Fprintf(&b, "TTL %s\n", t.ttlExpr())
	}
	b.WriteString("SETTINGS " + strings.Join(t.settings(cfg), ", "))
	return b.String()
}

func (t table) ttlExpr() string {
	return fmt.Sprintf("toDateTime(%s) + toIntervalDay(%d)", quote(t.ttl), t.days)
}

// settings: the window of tokens, without which a token does nothing; whole parts expire, never rows of one; and small parts keep all columns in
// one file: with 160 columns a block otherwise opens 400 files, which made an insert a tenth to a half dearer.
func (t table) settings(cfg Config) []string {
	s := []string{"index_granularity = 8192"}
	if t.partition != "" {
		s = append(s, "ttl_only_drop_parts = 1", "min_bytes_for_wide_part = 134217728")
	}
	switch {
	case t.window && cfg.Cluster.Name != "":
		s = append(s, "replicated_deduplication_window = 10000", "replicated_deduplication_window_seconds = 604800")
	case t.window:
		s = append(s, "non_replicated_deduplication_window = 10000")
	}
	return s
}

// view is each alert as it stands: its newest revision.
func view(cfg Config) string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s%s AS\nSELECT * FROM %s\nORDER BY id, revision DESC\nLIMIT 1 BY id",
		cfg.table("alerts_now"), cfg.onCluster(), cfg.table("alerts"))
}

func (c Config) table(name string) string { return quote(c.Database) + "." + quote(name) }

func (c Config) onCluster() string {
	if c.Cluster.Name == "" {
		return ""
	}
	return " ON CLUSTER " + quote(c.Cluster.Name)
}

func (c Config) engine(name string) string {
	if c.Cluster.Name == "" {
		return name
	}
	return "Replicated" + name + "('/clickhouse/tables/{uuid}/{shard}', '{replica}')"
}

func quote(name string) string { return "`" + strings.ReplaceAll(name, "`", "\\`") + "`" }

// literal writes s as a string of SQL.
func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
