package clickhouse

// For tests of what needs a cluster to run.
var (
	DDLOf     = schemaStatements
	ReaderSQL = readerSQL
)
