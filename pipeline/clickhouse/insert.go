package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	driver "github.com/ClickHouse/clickhouse-go/v2"

	"tidegate/pipeline"
)

// NewInserter returns an empty inserter into the table events. Each worker of the engine has its own.
func (s *Store) NewInserter() pipeline.EventInserter { return &eventInserter{NewColumnBlock(), s} }

// eventInserter is a block with the store that it goes to.
type eventInserter struct {
	*ColumnBlock
	store *Store
}

// Insert implements pipeline.EventInserter.
func (i *eventInserter) Insert(ctx context.Context, token string) error {
	return i.store.Insert(ctx, i.ColumnBlock, token)
}

// AckedRowsMayBeLost reports whether a server that is killed can keep a token and lose its rows: a single
// server writes the token before the part. A cluster's Keeper commits both in one step; there, another
// replica may not have the rows yet.
func (s *Store) AckedRowsMayBeLost() bool { return s.cfg.Cluster.Name == "" }

// Insert stores the block as one part: all rows or none. While the table keeps the token, an insert under
// the same token is acknowledged and not stored, so that an insert whose answer was lost can be repeated.
// Insert neither stores an empty block nor resets the block.
func (s *Store) Insert(ctx context.Context, columnBlock *ColumnBlock, token string) error {
	if columnBlock.rows == 0 {
		return nil
	}
	began := time.Now()
	err := s.insertColumns(ctx, "events", columnBlock, token)
	switch {
	case err == nil:
		s.metrics.inserts.WithLabelValues("ok").Inc()
		s.metrics.rows.Add(float64(columnBlock.rows))
		s.metrics.bytes.Add(float64(columnBlock.Bytes()))
		s.metrics.seconds.Observe(time.Since(began).Seconds())
	case errors.Is(err, pipeline.ErrRowsRejected):
		s.metrics.inserts.WithLabelValues("rejected").Inc()
	default:
		s.metrics.inserts.WithLabelValues("retriable").Inc()
	}
	return err
}

// dedupSettings returns the settings of an insert that may be repeated. Each is set explicitly, because
// servers differ in the defaults.
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

// insertColumns inserts a block into a table by the configured protocol.
func (s *Store) insertColumns(ctx context.Context, table string, columnBlock *ColumnBlock, token string) error {
	names := make([]string, len(columnBlock.columns))
	for i, c := range columnBlock.columns {
		names[i] = quoteName(c.name)
	}
	query := fmt.Sprintf("INSERT INTO %s (%s)", s.cfg.table(table), strings.Join(names, ", "))
	ctx = driver.Context(ctx, driver.WithSettings(dedupSettings(token)))
	if s.useHTTP {
		body := net.Buffers(columnBlock.encodeNative())
		return describeError(s.driver.InsertFormat(ctx, "Native", query, &body), s.cfg)
	}
	return s.insertNative(ctx, query, columnBlock)
}

// insertNative copies the finished columns into the driver's columns and sends those. The driver decodes them
// as it decodes a block that a server sends, which is cheaper than to append value by value.
func (s *Store) insertNative(ctx context.Context, query string, columnBlock *ColumnBlock) error {
	batch, err := s.driver.PrepareBatch(ctx, query)
	if err != nil {
		return describeError(err, s.cfg)
	}
	targets := batch.Columns()
	if len(targets) != len(columnBlock.columns) {
		batch.Abort()
		return fmt.Errorf("%w: it has %d of %d columns", errColumnMismatch, len(targets), len(columnBlock.columns))
	}

	for i, blockColumn := range columnBlock.columns {
		// A table of another version is not the rows' fault: the error is temporary.
		if kind := string(targets[i].Type()); targets[i].Name() != blockColumn.name || kind != blockColumn.kind {
			batch.Abort()
			return fmt.Errorf("ClickHouse at %s: schemas differ: column %s has type %s in the table and %s in this version",
				s.cfg.address(), blockColumn.name, kind, blockColumn.kind)
		}
		data := net.Buffers(blockColumn.appendData(nil, columnBlock.rows))
		if err := targets[i].Decode(proto.NewReader(&data), columnBlock.rows); err != nil {
			batch.Abort()
			return fmt.Errorf("%w: column %s: %w", errColumnMismatch, blockColumn.name, err)
		}
	}
	return describeError(batch.Send(), s.cfg)
}
