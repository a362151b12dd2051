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
	s := quoteName(c.name) + " " + c.kind
	if c.expr != "" {
		s += " " + c.expr
	}
	if c.codec != "" {
		s += " CODEC(" + c.codec + ")"
	}
	return s
}

// positionColumns are the columns of events that are not fields: where a row was read from. They are the audit, the memory of what is
// already there, and what the engine's reader drops repeats by.
var positionColumns = []tableColumn{
	{name: "_topic", kind: "LowCardinality(String)"},
	{name: "_partition", kind: "Int32", codec: "ZSTD(1)"},
	{name: "_offset", kind: "Int64", codec: "Delta, ZSTD(1)"},
	{name: "_index", kind: "UInt32", codec: "T64, ZSTD(1)"},
	{name: "_collector", kind: "UUID", codec: "ZSTD(1)"},
	{name: "_epoch", kind: "UInt64", codec: "ZSTD(1)"},
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
		kind, expr := c.Type, quoteName(c.Name)
		if c.Alias != "" {
			kind, expr = "String", c.Alias
		}
		aliases = append(aliases, tableColumn{name: f.Name, kind: kind, expr: "ALIAS " + expr})
	}
	return append(stored, positionColumns...), aliases
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

var versionColumns = []tableColumn{
	{name: "version", kind: "UInt32"},
	{name: "what", kind: "String"},
	{name: "at", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)"},
}

// A table is what CREATE TABLE needs to know.
type table struct {
	name        string
	columns     []tableColumn
	aliases     []tableColumn
	indexes     []index
	engine      string // without its arguments' replicated part
	orderBy     string
	partitionBy string
	ttlColumn   string // the column that it counts from
	ttlDays     int
	dedupWindow bool // of deduplication tokens
}

func tables(cfg Config) []table {
	stored, aliases := eventColumns()
	return []table{
		{name: "schema_versions", columns: versionColumns, engine: "MergeTree", orderBy: "version", dedupWindow: true},
		{
			name: "events", columns: stored, aliases: aliases, indexes: eventIndexes, engine: "MergeTree",
			orderBy:     "(`event.dataset`, toStartOfMinute(`@timestamp`), `host.name`, `@timestamp`)",
			partitionBy: "toYYYYMMDD(`event.ingested`)", ttlColumn: "event.ingested", ttlDays: cfg.TTLDays, dedupWindow: true,
		},
		{name: "alerts", columns: alertTableColumns(), engine: "ReplacingMergeTree", orderBy: "(id, revision)", ttlColumn: "stored", ttlDays: cfg.AlertTTLDays, dedupWindow: true},
	}
}

// DDL is the whole schema as statements, in order, as Migrate would run them on an empty server with the default configuration.
// deploy/schema.sql is the same, checked in.
func DDL() []string { return schemaStatements(Default()) }

func schemaStatements(cfg Config) []string {
	out := []string{"CREATE DATABASE IF NOT EXISTS " + quoteName(cfg.Database) + cfg.onCluster()}
	for _, t := range tables(cfg) {
		out = append(out, t.createStatement(cfg))
	}
	return append(out, alertsNowView(cfg))
}

func (t table) createStatement(cfg Config) string {
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
	if t.partitionBy != "" {
		fmt.Fprintf(&b, "PARTITION BY %s\n", t.partitionBy)
	}
	fmt.Fprintf(&b, "ORDER BY %s\n", t.orderBy)
	if t.ttlDays > 0 {
		fmt.Fprintf(&b, "TTL %s\n", t.ttlExpr())
	}
	b.WriteString("SETTINGS " + strings.Join(t.settings(cfg), ", "))
	return b.String()
}

func (t table) ttlExpr() string {
	return fmt.Sprintf("toDateTime(%s) + toIntervalDay(%d)", quoteName(t.ttlColumn), t.ttlDays)
}

// settings: the window of tokens, without which a token does nothing; whole parts expire, never rows of one; and small parts keep all columns in
// one file: with 160 columns a block otherwise opens 400 files, which made an insert a tenth to a half dearer.
func (t table) settings(cfg Config) []string {
	s := []string{"index_granularity = 8192"}
	if t.partitionBy != "" {
		s = append(s, "ttl_only_drop_parts = 1", "min_bytes_for_wide_part = 134217728")
	}
	switch {
	case t.dedupWindow && cfg.Cluster.Name != "":
		s = append(s, "replicated_deduplication_window = 10000", "replicated_deduplication_window_seconds = 604800")
	case t.dedupWindow:
		s = append(s, "non_replicated_deduplication_window = 10000")
	}
	return s
}

// alertsNowView is each alert as it stands: its newest revision.
func alertsNowView(cfg Config) string {
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s%s AS\nSELECT * FROM %s\nORDER BY id, revision DESC\nLIMIT 1 BY id",
		cfg.table("alerts_now"), cfg.onCluster(), cfg.table("alerts"))
}

func (c Config) table(name string) string { return quoteName(c.Database) + "." + quoteName(name) }

func (c Config) onCluster() string {
	if c.Cluster.Name == "" {
		return ""
	}
	return " ON CLUSTER " + quoteName(c.Cluster.Name)
}

func (c Config) engine(name string) string {
	if c.Cluster.Name == "" {
		return name
	}
	return "Replicated" + name + "('/clickhouse/tables/{uuid}/{shard}', '{replica}')"
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "\\`") + "`" }

// quoteString writes s as a string of SQL.
func quoteString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
