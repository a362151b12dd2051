package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
)

// A Store keeps events and alerts and can be asked for what it keeps. clickhouse.Store is the real one;
// DiscardStore keeps nothing. An error of a Store is temporary, and the call is repeated, unless it is
// pipeline.ErrRowsRejected.
type Store interface {
	// NewInserter returns an empty inserter of events.
	NewInserter() pipeline.EventInserter
	// InsertAlerts stores revisions of alerts. While the store remembers token, a repeat stores nothing.
	InsertAlerts(ctx context.Context, list []*pipeline.Alert, token string) error
	// AckedRowsMayBeLost reports whether an insert can be acknowledged although its rows are not stored: a
	// server that was killed may remember the token of an insert and not have kept its rows.
	AckedRowsMayBeLost() bool

	// ExistingRows returns which rows of a block are stored.
	ExistingRows(ctx context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error)
	// HighestOffset returns the highest message offset of which a row is stored; ok is false where none is.
	HighestOffset(ctx context.Context, from pipeline.TopicPartition) (offset int64, ok bool, err error)
	// StoredBatches returns the batches that are stored in the rows that filter selects, by producer.
	StoredBatches(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.StoredBatches, error)
	// AlertsBefore returns the newest revision of each alert of a partition among those whose Offset lies
	// below before. Alerts whose window began more than lookback before the newest window are left out.
	AlertsBefore(ctx context.Context, partition int32, before int64, lookback time.Duration) ([]*pipeline.Alert, error)
}
