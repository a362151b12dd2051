package clickhouse

import (
	"context"
	"net/netip"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"tidegate/pipeline"
)

// Statements that need a cluster to run.
var (
	SchemaStatements = schemaStatements
	ReaderSQL        = readerSQL
)

// AlertFields returns the name of each column of the tables of alerts, and the pointer to its field in a.
func AlertFields(alert *pipeline.Alert) (names []string, pointers []any) {
	for _, field := range alertFields {
		names, pointers = append(names, field.column.name), append(pointers, field.pointer(alert))
	}
	return names, pointers
}

// Conn returns the driver's connection, for queries of tests.
func (s *Store) Conn() driver.Conn { return s.driver }

// AlertsInView returns the rows of the view alerts.
func (s *Store) AlertsInView(ctx context.Context) ([]*pipeline.Alert, error) {
	return s.selectAlerts(ctx, "", "FROM "+s.cfg.table(alertsView)+" ORDER BY id")
}

// PutIP returns the bytes that a column of strings holds for an address.
func PutIP(addr netip.Addr) []byte {
	column := &stringColumn{}
	column.putIP(0, addr)
	return column.buf
}

// PutString returns the bytes that a column of strings holds for a text.
func PutString(text string) []byte {
	column := &stringColumn{}
	column.putString(0, text)
	return column.buf
}

// EventIndexNames returns the names of the indexes of the table events.
func EventIndexNames() (names []string) {
	for _, index := range eventIndexes {
		names = append(names, index.name)
	}
	return names
}
