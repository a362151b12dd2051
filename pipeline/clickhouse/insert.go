package clickhouse

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/ClickHouse/ch-go/proto"
)

// Insert stores the block as one part. The token makes a repeat harmless: while the table remembers it, a block under the same
// token is acknowledged and not stored. An empty block is nothing to do. The block may be inserted again, and is not reset.
func (s *Store) Insert(ctx context.Context, b *ColumnBlock, token string) error {
	if b.rows == 0 {
		return nil
	}
	began := time.Now()
	err := s.insertColumns(ctx, "events", b.columns, b, token)
	switch {
	case err == nil:
		s.metrics.inserts.WithLabelValues("ok").Inc()
		s.metrics.rows.Add(float64(b.rows))
		s.metrics.bytes.Add(float64(b.Bytes()))
		s.metrics.seconds.Observe(time.Since(began).Seconds())
	case IsPermanent(err):
		s.metrics.inserts.WithLabelValues("permanent").Inc()
	default:
		s.metrics.inserts.WithLabelValues("retriable").Inc()
	}
	return err
}

// dedupSettings are the settings of an insert that may come again. They are all said: their defaults differ between servers.
func dedupSettings(token string) driver.Settings {
	return driver.Settings{
		"insert_deduplicate":                                 1,
		"insert_deduplication_token":                         token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"async_insert":                                       0,
		"wait_for_async_insert":                              1,
		"input_format_parallel_parsing":                      0,
	}
}

func (s *Store) insertColumns(ctx context.Context, table string, columns []blockColumn, b *ColumnBlock, token string) error {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoteName(c.name)
	}
	query := fmt.Sprintf("INSERT INTO %s (%s)", s.cfg.table(table), strings.Join(names, ", "))
	ctx = driver.Context(ctx, driver.WithSettings(dedupSettings(token)))
	if s.useHTTP {
		body := net.Buffers(b.encodeNative(columns))
		return describeError(s.driver.InsertFormat(ctx, "Native", query, &body), s.cfg)
	}
	return s.insertNative(ctx, query, columns, b.rows)
}

// insertNative moves the finished columns into the driver's own, by the way on which it reads a server's block.
func (s *Store) insertNative(ctx context.Context, query string, columns []blockColumn, rows int) error {
	batch, err := s.driver.PrepareBatch(ctx, query)
	if err != nil {
		return describeError(err, s.cfg)
	}
	theirs := batch.Columns()
	if len(theirs) != len(columns) {
		batch.Abort()
		return fmt.Errorf("%w: it has %d of %d columns", errColumnMismatch, len(theirs), len(columns))
	}
	for i, c := range columns {
		if got := string(theirs[i].Type()); theirs[i].Name() != c.name || got != c.kind {
			batch.Abort()
			return fmt.Errorf("ClickHouse at %s: column %s is %s there and %s here: the table is of another version", s.cfg.address(), c.name, got, c.kind)
		}
		data := net.Buffers(c.appendData(nil, rows))
		if err := theirs[i].Decode(proto.NewReader(&data), rows); err != nil {
			batch.Abort()
			return fmt.Errorf("%w: column %s: %w", errColumnMismatch, c.name, err)
		}
	}
	return describeError(batch.Send(), s.cfg)
}
