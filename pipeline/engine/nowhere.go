package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
)

// Nowhere is a Store that keeps nothing, for a machine without ClickHouse: events are judged and alerts are raised, and that is all.
// With it nothing is remembered over a restart but the offsets: a batch that is repeated over one is judged again, and a window that
// was open begins anew.
func Nowhere() Store { return nowhere{} }

type nowhere struct{}

type countBlock struct{ n int }

func (b *countBlock) Append(*pipeline.Event, pipeline.Position, string) { b.n++ }
func (b *countBlock) Rows() int                                         { return b.n }
func (b *countBlock) Reset()                                            { b.n = 0 }

func (nowhere) NewBlock() Block                             { return &countBlock{} }
func (nowhere) Insert(context.Context, Block, string) error { return nil }
func (nowhere) IsPermanent(error) bool                      { return false }
func (nowhere) Forgets() bool                               { return false }

func (nowhere) Held(context.Context, string, int32, int64, int64, int64) (map[[2]int64]struct{}, error) {
	return nil, nil
}

func (nowhere) HighestOffset(context.Context, string, int32) (int64, bool, error) {
	return 0, false, nil
}

func (nowhere) Stamps(context.Context, string, int32, int64, time.Time) ([]clickhouse.BatchStamp, error) {
	return nil, nil
}

func (nowhere) StampsOf(context.Context, string, int32, [16]byte, uint64, int64) (st clickhouse.BatchStamp, ok bool, err error) {
	return st, false, nil
}

func (nowhere) InsertAlerts(context.Context, []*pipeline.Alert, string) error { return nil }

func (nowhere) AlertsBefore(context.Context, int32, int64, time.Duration) ([]*pipeline.Alert, error) {
	return nil, nil
}
