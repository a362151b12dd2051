package engine

import (
	"context"

	"tidegate/pipeline"
)

// DiscardStore is a Store that keeps nothing, for a machine without ClickHouse: events are evaluated and
// alerts are published, but no row is stored. Only the offsets in Kafka survive a restart. A batch that is
// sent again after a restart is evaluated again, an open alert window starts over, and rules of first_seen learn anew.
type DiscardStore struct{}

// NewInserter returns an inserter that counts rows.
func (DiscardStore) NewInserter() pipeline.EventInserter { return &rowCounter{} }

// InsertAlerts stores nothing.
func (DiscardStore) InsertAlerts(context.Context, []*pipeline.Alert, string) error { return nil }

// AckedRowsMayBeLost reports false: no row is missed.
func (DiscardStore) AckedRowsMayBeLost() bool { return false }

// ExistingRows returns no rows.
func (DiscardStore) ExistingRows(context.Context, pipeline.BlockID) (map[pipeline.RowID]struct{}, error) {
	return nil, nil
}

// NewestRows reports false: no row is stored.
func (DiscardStore) NewestRows(
	context.Context, pipeline.TopicPartition, int64,
) (rows pipeline.NewestRows, ok bool, err error) {
	return rows, false, nil
}

// RunningInserts returns 0.
func (DiscardStore) RunningInserts(context.Context, pipeline.TopicPartition) (int, error) {
	return 0, nil
}

// StoredBlock describes a block without rows.
func (DiscardStore) StoredBlock(context.Context, pipeline.TopicPartition, int64) (pipeline.StoredBlock, error) {
	return pipeline.StoredBlock{}, nil
}

// StoredVerdicts calls nothing.
func (DiscardStore) StoredVerdicts(context.Context, pipeline.BlockID, func(*pipeline.Event, pipeline.Position)) error {
	return nil
}

// StoredBatches returns no batches.
func (DiscardStore) StoredBatches(context.Context, pipeline.BatchFilter) ([]pipeline.StoredBatches, error) {
	return nil, nil
}

// SequenceRanges returns no batches.
func (DiscardStore) SequenceRanges(context.Context, pipeline.BatchFilter) ([]pipeline.SequenceRange, error) {
	return nil, nil
}

// NewestAlerts returns no alerts.
func (DiscardStore) NewestAlerts(context.Context, pipeline.AlertFilter) ([]*pipeline.Alert, error) {
	return nil, nil
}

// InsertSeenValues stores nothing.
func (DiscardStore) InsertSeenValues(context.Context, string, []pipeline.SeenValue) error { return nil }

// SeenValues calls nothing.
func (DiscardStore) SeenValues(context.Context, pipeline.SeenFilter, func(pipeline.SeenValue)) error {
	return nil
}

// rowCounter is the inserter of a DiscardStore.
type rowCounter struct{ rows int }

func (c *rowCounter) Append(*pipeline.Event, pipeline.Position, string) { c.rows++ }
func (c *rowCounter) Rows() int                                         { return c.rows }
func (c *rowCounter) Capacity() int                                     { return 0 }
func (c *rowCounter) Reset()                                            { c.rows = 0 }
func (c *rowCounter) Insert(context.Context, string) error              { return nil }
