package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
)

// DiscardStore is a Store that keeps nothing, for a machine without ClickHouse: events are evaluated and alerts are published, but
// no row is stored. Only Kafka's offsets survive a restart: a batch that is sent again after one is evaluated again, and an open
// alert window starts over.
type DiscardStore struct{}

type rowCounter struct{ n int }

func (b *rowCounter) Append(*pipeline.Event, pipeline.Position, string) { b.n++ }
func (b *rowCounter) Rows() int                                         { return b.n }
func (b *rowCounter) Reset()                                            { b.n = 0 }

func (DiscardStore) NewBlock() Block                             { return &rowCounter{} }
func (DiscardStore) Insert(context.Context, Block, string) error { return nil }
func (DiscardStore) IsPermanent(error) bool                      { return false }
func (DiscardStore) AckedRowsMayBeLost() bool                    { return false }

func (DiscardStore) ExistingRows(context.Context, string, int32, int64, int64, int64) (map[[2]int64]struct{}, error) {
	return nil, nil
}

func (DiscardStore) HighestOffset(context.Context, string, int32) (int64, bool, error) {
	return 0, false, nil
}

func (DiscardStore) Stamps(context.Context, string, int32, int64, time.Time) ([]clickhouse.BatchStamp, error) {
	return nil, nil
}

func (DiscardStore) StampsOf(context.Context, string, int32, [16]byte, uint64, int64) (st clickhouse.BatchStamp, ok bool, err error) {
	return st, false, nil
}

func (DiscardStore) InsertAlerts(context.Context, []*pipeline.Alert, string) error { return nil }

func (DiscardStore) AlertsBefore(context.Context, int32, int64, time.Duration) ([]*pipeline.Alert, error) {
	return nil, nil
}
