package clickhouse

import (
	"fmt"
	"slices"
	"strings"

	"tidegate/pipeline"
)

// A tableColumn is one column of CREATE TABLE.
type tableColumn struct {
	name  string
	kind  string // ClickHouse type
	codec string // "": the server's default
	expr  string // ALIAS or DEFAULT with its expression; "": a plain column
}

func (c tableColumn) String() string {
	text := quoteName(c.name) + " " + c.kind
	if c.expr != "" {
		text += " " + c.expr
	}
	if c.codec != "" {
		text += " CODEC(" + c.codec + ")"
	}
	return text
}

// positionColumns are the columns of the table events that hold the topic and a pipeline.Position: where a
// row was read from. The engine finds existing rows and stored batches by them.
var positionColumns = []positionColumn{
	{tableColumn{name: "_topic", kind: "LowCardinality(String)"}, "Kafka topic."},
	{tableColumn{name: "_partition", kind: "Int32", codec: "ZSTD(1)"}, "Partition of the topic."},
	{
		tableColumn{name: "_offset", kind: "Int64", codec: "Delta, ZSTD(1)"},
		"Offset of the message, which holds many events.",
	},
	{tableColumn{name: "_index", kind: "UInt32", codec: "T64, ZSTD(1)"}, "Position within the message, from 0."},
	{
		tableColumn{name: "_collector", kind: "UUID", codec: "ZSTD(1)"},
		"Identity of the collector, generated once per data folder.",
	},
	{
		tableColumn{name: "_epoch", kind: "UInt64", codec: "ZSTD(1)"},
		"Epoch of the collector: drawn at random at each start, one for logs and one for packets.",
	},
	{
		tableColumn{name: "_sequence", kind: "UInt64", codec: "Delta, ZSTD(1)"},
		"Number of the batch, counted per collector, epoch and partition.",
	},
	{
		tableColumn{name: "_shipped", kind: "DateTime64(9, 'UTC')", codec: "Delta, ZSTD(1)"},
		"When the batch was sent, if the event has a later time, as after a clock was ahead; else 1970.",
	},
}

// A positionColumn is a column with its line in docs/FIELDS.md.
type positionColumn struct {
	tableColumn
	doc string
}

// eventColumns returns the columns of the table events: the stored ones in the order of the table, and the
// aliases, by which a field can be queried under its own name where the column has another.
func eventColumns() (stored, aliases []tableColumn) {
	for i := range pipeline.Fields {
		field := &pipeline.Fields[i]
		col := field.Column
		stored = append(stored, tableColumn{name: col.Name, kind: col.Type, codec: col.Codec})
		if col.Name == field.Name {
			continue
		}
		kind, expr := col.Type, quoteName(col.Name)
		if col.Alias != "" {
			kind, expr = "String", col.Alias
		}
		aliases = append(aliases, tableColumn{name: field.Name, kind: kind, expr: "ALIAS " + expr})
	}
	for _, col := range positionColumns {
		stored = append(stored, col.tableColumn)
	}
	return stored, aliases
}

// An index lets a query skip granules. Each costs time at every insert and every merge, so there is one only
// for a query that is made.
type index struct{ name, on, kind string }

var eventIndexes = []index{
	{"at", "`@timestamp`", "minmax GRANULARITY 1"},                      // a range of event time
	{"position", "(_partition, _offset)", "minmax GRANULARITY 1"},       // dedup_queries.go
	{"has_verdict", "notEmpty(`verdict.rule`)", "set(2) GRANULARITY 1"}, // events with verdicts
	{"id", "`event.id`", "bloom_filter(0.01) GRANULARITY 1"},            // the event of an alert
	{"source_ip", "`source.ip`", "bloom_filter(0.01) GRANULARITY 4"},    // the connections of an address
	{"destination_ip", "`destination.ip`", "bloom_filter(0.01) GRANULARITY 4"},
	{"container", "`container.id`", "bloom_filter(0.01) GRANULARITY 4"},
	{"question", "`dns.question.name`", "bloom_filter(0.01) GRANULARITY 4"},
	{"domain", "`url.domain`", "bloom_filter(0.01) GRANULARITY 4"},
	{"message", "`message`", textIndex}, // hasToken(message, 'timeout')
}

// textIndex finds words in log lines. A server without this type of index gets oldTextIndex, which reads
// more.
const (
	textIndex    = "text(tokenizer = 'splitByNonAlpha')"
	oldTextIndex = "tokenbf_v1(8192, 3, 0) GRANULARITY 4"
)

// A projection is a small table within each part of a table, written and merged with the part.
type projection struct{ name, query string }

// eventProjections are the projections of the table events. The queries of dedup_queries.go that look for messages
// group the rows in the same way, so the server reads one row a message instead of one an event, in the order of the
// partitions of the topic. A query on rows reads all partitions, because merges mix them.
var eventProjections = []projection{{"messages", "SELECT " + messageColumns + " GROUP BY " + messageColumns}}

// messageColumns are the columns that all events of a message have in common.
const messageColumns = "_topic, _partition, `event.ingested`, _offset, _collector, _epoch, _sequence"

var versionColumns = []tableColumn{
	{name: "version", kind: "UInt32"},
	{name: "what", kind: "String"},
	{name: "at", kind: "DateTime64(3, 'UTC')", expr: "DEFAULT now64(3)"},
}

// A table holds the parts of one CREATE TABLE.
type table struct {
	name        string
	columns     []tableColumn
	aliases     []tableColumn
	indexes     []index
	projections []projection
	engine      string // of a single server; a cluster's is the same with Replicated in front
	// engineArgument is the argument of the engine; "": none.
	engineArgument string
	orderBy        string
	partitionBy    string // "": one partition
	ttlColumn      string // time from which ttlDays count; "": rows never expire
	ttlDays        int    // 0: rows never expire
	dedupWindow    bool   // the table keeps the tokens of recent inserts
}

// tables returns the tables in the order in which they are created.
func tables(cfg Config) []table {
	stored, aliases := eventColumns()
	return []table{
		{
			name: "schema_versions", columns: versionColumns, engine: "MergeTree", orderBy: "version",
			dedupWindow: true,
		},
		{
			name: "events", columns: stored, aliases: aliases, indexes: eventIndexes, projections: eventProjections,
			engine:      "MergeTree",
			orderBy:     "(`event.dataset`, toStartOfMinute(`@timestamp`), `host.name`, `@timestamp`)",
			partitionBy: "toYYYYMMDD(`event.ingested`)", ttlColumn: "event.ingested", ttlDays: cfg.TTLDays,
			dedupWindow: true,
		},
		{
			name: alertRevisions, columns: alertTableColumns(), engine: "ReplacingMergeTree", orderBy: "(id, revision)",
			partitionBy: "toYYYYMMDD(ingested)", ttlColumn: "stored", ttlDays: cfg.revisionDays(), dedupWindow: true,
		},
		{
			// The window is part of the id, so that all revisions of an alert have one key. With the window first, FINAL
			// need not merge old parts. A partition by month was faster, but an insert whose times span many months fails.
			name: newestAlerts, columns: alertTableColumns(), engine: "ReplacingMergeTree", engineArgument: "revision",
			orderBy: newestAlertsKey, ttlColumn: "stored", ttlDays: cfg.AlertTTLDays, dedupWindow: true,
		},
		seenValuesOf(),
	}
}

// DDL returns the statements that create the schema, as Migrate runs them on an empty server with the default
// configuration. deploy/schema.sql holds them for readers.
func DDL() []string { return schemaStatements(Default()) }

// schemaStatements returns the statements that create the database, the tables, the views and the function.
func schemaStatements(cfg Config) []string {
	out := []string{createDatabase(cfg)}
	out = append(out, tableStatements(cfg)...)
	return append(out, createAlertFeed(cfg)[0], createAlertsView(cfg), createInNet(cfg))
}

func createDatabase(cfg Config) string {
	return "CREATE DATABASE IF NOT EXISTS " + quoteName(cfg.Database) + cfg.onCluster()
}

// tableStatements returns the statements that create the tables.
func tableStatements(cfg Config) (out []string) {
	for _, t := range tables(cfg) {
		out = append(out, t.createStatement(cfg))
	}
	return out
}

// createStatement returns the CREATE TABLE statement of t.
func (t table) createStatement(cfg Config) string {
	var out strings.Builder
	fmt.Fprintf(&out, "CREATE TABLE IF NOT EXISTS %s%s\n(\n", cfg.table(t.name), cfg.onCluster())
	var lines []string
	for _, col := range slices.Concat(t.columns, t.aliases) {
		lines = append(lines, "    "+col.String())
	}
	for _, index := range t.indexes {
		lines = append(lines, fmt.Sprintf("    INDEX %s %s TYPE %s", index.name, index.on, index.kind))
	}
	for _, p := range t.projections {
		lines = append(lines, fmt.Sprintf("    PROJECTION %s (%s)", p.name, p.query))
	}
	out.WriteString(strings.Join(lines, ",\n"))

	fmt.Fprintf(&out, "\n)\nENGINE = %s\n", cfg.engine(t.engine, t.engineArgument))
	if t.partitionBy != "" {
		fmt.Fprintf(&out, "PARTITION BY %s\n", t.partitionBy)
	}
	fmt.Fprintf(&out, "ORDER BY %s\n", t.orderBy)
	if t.ttlDays > 0 {
		fmt.Fprintf(&out, "TTL %s\n", t.ttlExpr())
	}
	out.WriteString("SETTINGS " + strings.Join(t.settings(cfg), ", "))
	return out.String()
}

// ttlExpr returns the expression of the TTL clause.
func (t table) ttlExpr() string {
	return fmt.Sprintf("toDateTime(%s) + toIntervalDay(%d)", quoteName(t.ttlColumn), t.ttlDays)
}

// settings returns the settings of t for its SETTINGS clause.
func (t table) settings(cfg Config) []string {
	settings := []string{"index_granularity = 8192"}
	if t.partitionBy != "" {
		// Whole parts expire, never rows of a part. Small parts keep all columns in one file: with 160
		// columns a block otherwise opens 400 files, which made an insert 10 to 50 % slower.
		settings = append(settings, "ttl_only_drop_parts = 1", "min_bytes_for_wide_part = 134217728")
	}
	switch { // without a window of tokens a token has no effect
	case t.dedupWindow && cfg.Cluster.Name != "":
		settings = append(settings,
			"replicated_deduplication_window = 10000", "replicated_deduplication_window_seconds = 604800")
	case t.dedupWindow:
		settings = append(settings, "non_replicated_deduplication_window = 10000")
	}
	return settings
}

// createInNet returns the statement of the function in_net, which reports whether a text is an address of a network.
// ClickHouse's isIPAddressInRange ends a query at the first text that is no address, and an absent address is "".
func createInNet(cfg Config) string {
	const isAddress = "(isIPv4String(ip) OR isIPv6String(ip))"
	return "CREATE FUNCTION IF NOT EXISTS in_net" + cfg.onCluster() + " AS (ip, cidr) ->\n" +
		"    isIPAddressInRange(if(" + isAddress + ", ip, '::'), cidr) AND " + isAddress
}

// table returns the quoted name of a table in the database.
func (c Config) table(name string) string { return quoteName(c.Database) + "." + quoteName(name) }

// onCluster returns the ON CLUSTER clause; "" for a single server.
func (c Config) onCluster() string {
	if c.Cluster.Name == "" {
		return ""
	}
	return " ON CLUSTER " + quoteName(c.Cluster.Name)
}

// engine returns the table engine with the replicated form on a cluster.
func (c Config) engine(name, argument string) string {
	if c.Cluster.Name == "" {
		if argument != "" {
			name += "(" + argument + ")"
		}
		return name
	}
	if argument != "" {
		argument = ", " + argument
	}
	return "Replicated" + name + "('/clickhouse/tables/{uuid}/{shard}', '{replica}'" + argument + ")"
}

// quoteName returns name as an identifier of SQL.
func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "\\`") + "`" }

// quoteString returns s as a string literal of SQL.
func quoteString(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
