package engine

import (
	"context"

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
	// NewestRows describes the newest stored rows of a partition whose log ends at end. ok is false if no row
	// is stored.
	NewestRows(ctx context.Context, from pipeline.TopicPartition, end int64) (rows pipeline.NewestRows, ok bool, err error)
	// RunningInserts returns the number of inserts of blocks of a partition that the store works on, also
	// those of clients that are gone.
	RunningInserts(ctx context.Context, from pipeline.TopicPartition) (int, error)
	// StoredBlock describes the stored rows of the block that was formed at blockTime.
	StoredBlock(ctx context.Context, from pipeline.TopicPartition, blockTime int64) (pipeline.StoredBlock, error)
	// StoredVerdicts calls addEvent with each stored event of a block that has verdicts, in the order of the
	// log, and with its position, of which Offset and Shipped are set. The events have the values that are in
	// an alert, and no others.
	StoredVerdicts(
		ctx context.Context, block pipeline.BlockID, addEvent func(event *pipeline.Event, at pipeline.Position),
	) error
	// StoredBatches returns the newest batches of the stored rows that filter selects, by producer.
	StoredBatches(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.StoredBatches, error)
	// SequenceRanges returns all batches of the stored rows that filter selects.
	SequenceRanges(ctx context.Context, filter pipeline.BatchFilter) ([]pipeline.SequenceRange, error)
	// NewestAlerts returns the newest revision of each alert that filter selects.
	NewestAlerts(ctx context.Context, filter pipeline.AlertFilter) ([]*pipeline.Alert, error)

	// InsertSeenValues stores what rules of first_seen remember of the signals of a topic. It may be repeated.
	InsertSeenValues(ctx context.Context, topic string, values []pipeline.SeenValue) error
	// SeenValues calls add with what filter selects, groups before values. Where it fails it may have called it.
	SeenValues(ctx context.Context, filter pipeline.SeenFilter, add func(pipeline.SeenValue)) error
}
