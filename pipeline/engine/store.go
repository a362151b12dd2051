package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
)

// A Store keeps events and alerts and answers queries about them. clickhouse.Store is the implementation in
// production; DiscardStore keeps nothing. Every error except pipeline.ErrRowsRejected is temporary, and the
// engine repeats the call.
type Store interface {
	// NewInserter returns an empty inserter of events.
	NewInserter() pipeline.EventInserter
	// InsertAlerts stores revisions of alerts. While token is in the store's window of recent tokens, a
	// repeat stores nothing.
	InsertAlerts(ctx context.Context, list []*pipeline.Alert, token string) error
	// AckedRowsMayBeLost reports whether a repeated insert can be acknowledged although its rows are not
	// stored. A server that was killed may have the token of an insert on disk and not its rows.
	AckedRowsMayBeLost() bool

	// ExistingRows returns the rows of a block that are stored.
	ExistingRows(ctx context.Context, block pipeline.BlockID) (map[pipeline.RowID]struct{}, error)
	// HighestOffset returns the highest message offset that has a stored row. ok is false if no row is
	// stored.
	HighestOffset(ctx context.Context, from pipeline.TopicPartition) (offset int64, ok bool, err error)
	// StoredBatches returns the batches of the stored rows that filter selects, by producer.
	StoredBatches(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.StoredBatches, error)
	// AlertsBefore returns the newest revision of each alert of a partition among those whose Offset is
	// below before and whose window begins at latest or earlier. Alerts whose window began more than lookback
	// before the newest one of these are left out.
	AlertsBefore(
		ctx context.Context, partition int32, before int64, latest time.Time, lookback time.Duration,
	) ([]*pipeline.Alert, error)
}
