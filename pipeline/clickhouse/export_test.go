package clickhouse

import (
	"context"
	"net/netip"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"tidegate/pipeline"
)

// For tests of statements that need a cluster to run.
var (
	SchemaStatements = schemaStatements
	ReaderSQL        = readerSQL
)

// AlertFields returns for each column of alerts its name and the pointer into a that the insert and the query
// use.
func AlertFields(a *pipeline.Alert) (names []string, pointers []any) {
	for _, f := range alertFields {
		names, pointers = append(names, f.column.name), append(pointers, f.pointer(a))
	}
	return names, pointers
}

// Conn returns the driver's connection, for queries that only tests make.
func (s *Store) Conn() driver.Conn { return s.driver }

// AlertsNow returns the rows of the view alerts_now.
func (s *Store) AlertsNow(ctx context.Context) ([]*pipeline.Alert, error) {
	return s.selectAlerts(ctx, "", "FROM "+s.cfg.table("alerts_now")+" ORDER BY id")
}

// PutIP returns the bytes that a column of strings holds for an address.
func PutIP(addr netip.Addr) []byte {
	c := &stringColumn{}
	c.putIP(0, addr)
	return c.buf
}

// PutString returns the bytes that a column of strings holds for a text.
func PutString(v string) []byte {
	c := &stringColumn{}
	c.putString(0, v)
	return c.buf
}
