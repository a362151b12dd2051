package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
)

// A Block gathers rows. It keeps nothing of an event that was appended.
type Block interface {
	Append(e *pipeline.Event, at pipeline.Position, topic string)
	Rows() int
	Reset()
}

// A Store is what the engine asks of ClickHouse. Every method that gives an error may fail in ways that pass, and is tried again.
type Store interface {
	NewBlock() Block
	// Insert stores b as one part; a repeat under the same token changes nothing while the store remembers the token.
	Insert(ctx context.Context, b Block, token string) error
	// Forgets tells whether a server that was killed may remember a token and not have its rows.
	AckedRowsMayBeLost() bool
	// IsPermanent tells whether rows were refused for good.
	IsPermanent(err error) bool

	// Held is which (offset, index) of the messages [from, to) are there, as a block of the time at stored them.
	ExistingRows(ctx context.Context, topic string, partition int32, from, to, at int64) (map[[2]int64]struct{}, error)
	// HighestOffset is the newest message of which a row is there.
	HighestOffset(ctx context.Context, topic string, partition int32) (offset int64, ok bool, err error)
	// Stamps are the batches that were stored from messages before an offset, since a time.
	Stamps(ctx context.Context, topic string, partition int32, before int64, since time.Time) ([]clickhouse.BatchStamp, error)
	// StampsOf is the same of one life, since ever; ok is false where nothing of it is there.
	StampsOf(ctx context.Context, topic string, partition int32, collector [16]byte, epoch uint64, before int64) (st clickhouse.BatchStamp, ok bool, err error)

	// InsertAlerts stores revisions under a token.
	InsertAlerts(ctx context.Context, list []*pipeline.Alert, token string) error
	// AlertsBefore gives of each alert of a partition the last revision whose Offset lies before an offset, of those whose window
	// began within lookback before the newest one's.
	AlertsBefore(ctx context.Context, partition int32, before int64, lookback time.Duration) ([]*pipeline.Alert, error)
}

// ClickHouse is the real Store.
func ClickHouse(s *clickhouse.Store) Store { return chStore{s} }

type chStore struct{ *clickhouse.Store }

func (s chStore) NewBlock() Block { return s.Store.NewColumnBlock() }

func (s chStore) Insert(ctx context.Context, b Block, token string) error {
	return s.Store.Insert(ctx, b.(*clickhouse.ColumnBlock), token)
}

// Forgets: a server of its own writes the token and then the part. A cluster's Keeper takes both in one step, and another replica may
// not have the rows yet.
func (s chStore) AckedRowsMayBeLost() bool { return s.Config().Cluster.Name == "" }

func (chStore) IsPermanent(err error) bool { return clickhouse.IsPermanent(err) }
