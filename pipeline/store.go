package pipeline

import (
	"context"
	"errors"
	"time"
)

// ErrRowsRejected is wrapped by the error of an insert whose rows the store rejects: repeating the insert
// cannot help. Every other error of a store is temporary.
var ErrRowsRejected = errors.New("store rejected the rows")

// A TopicPartition names a partition of a Kafka topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// A BlockID identifies a block: the messages [Start, End) of a partition, formed at Time. It includes Time
// because a topic that was deleted and created again has other messages at the same offsets.
type BlockID struct {
	TopicPartition
	Start, End int64 // offsets
	Time       int64 // event.ingested of all its events, ns since 1970
}

// A RowID identifies an event within its partition.
type RowID struct {
	Offset int64  // of the message
	Index  uint32 // of the event within the message
}

// A Producer is one collector between two starts. Each producer numbers its own batches.
type Producer struct {
	Collector [16]byte
	Epoch     uint64
}

// Producer returns the producer that sent the batch.
func (id BatchID) Producer() Producer { return Producer{id.Collector, id.Epoch} }

// A SequenceWindow records which batches of one producer were seen on one partition: the highest sequence,
// and a bit for each of the last 64. Bit i of Seen stands for the sequence Highest-i.
type SequenceWindow struct {
	Highest, Seen uint64
}

// StoredBatches are the batches of one producer that are stored.
type StoredBatches struct {
	Producer
	SequenceWindow
}

// A SequenceRange names batches of one producer that are stored: those with the sequences First to Last.
type SequenceRange struct {
	Producer
	First, Last uint64
}

// A BatchFilter selects the rows of a partition from which a store computes StoredBatches and SequenceRanges.
type BatchFilter struct {
	TopicPartition
	From     int64     // offset: only messages at or above it
	Before   int64     // offset: only messages below it
	Except   int64     // block time: no rows of this block, ns since 1970; 0 excepts none
	Since    time.Time // only rows that were ingested at or after it; the zero time selects all
	Producer *Producer // only this producer; nil selects all
}

// NewestRows describes the newest stored rows of a partition.
type NewestRows struct {
	Highest  int64 // the highest offset of a row, maybe of an earlier log
	LastTime int64 // the latest block time of a row, ns since 1970: that of the last block

	// InLog is the newest row, by block time, whose offset is below the end of the log. It shows whether the log is the
	// one that the rows were read from: its message must be at its offset.
	InLog    LogRow
	HasInLog bool // there is such a row
}

// A LogRow is a row with the message that it was read from.
type LogRow struct {
	Offset    int64
	BlockTime int64 // ns since 1970
	BatchID   BatchID
}

// A StoredBlock describes the stored rows of a block.
type StoredBlock struct {
	Start, End  int64 // the first offset of its rows, and the one behind the last
	HasVerdicts bool  // a row has a verdict
	// EarlierEnd is the offset behind the last row of the block before it, by block time; 0 if there is none.
	EarlierEnd int64
}

// An AlertFilter selects alerts of a partition of the signals topic, and those that name no topic.
type AlertFilter struct {
	TopicPartition
	Except   BlockID       // no revisions of this block; with the Time 0 it excepts none
	Latest   time.Time     // no alerts whose window begins later; the zero time selects all
	Lookback time.Duration // no alerts whose window began more than this before the newest of the others
}

// A SeenValue is what a rule of first_seen remembers of a group, or of a value of a group.
type SeenValue struct {
	Rule, Version string
	Group         uint64 // hash of rule and group
	Value         int64  // hash of the value, its first half; of the group itself 0
	ValueHigh     uint64 // its second half
	First         int64  // when the group was there first, ns since 1970; 0: this is of a value
	Last          int64  // when it was there last, roughly, ns since 1970
}

// IsGroup reports whether it is of the group itself.
func (v SeenValue) IsGroup() bool { return v.First != 0 }

// A SeenFilter selects the newest SeenValue of each group and value of a rule, those of one partition of the signals topic.
type SeenFilter struct {
	TopicPartition     // of the signals topic
	Partitions     int // of the topic: a group is on the partition Group % Partitions
	Rule, Version  string
	Limit          int // of values, and of groups: those that were there last
}

// An EventInserter collects events as the rows of one insert. It belongs to one goroutine.
type EventInserter interface {
	// Append adds e as a row. It copies the values of e, so that e may be released afterwards.
	Append(e *Event, at Position, topic string)
	// Rows returns the number of rows appended since the last Reset.
	Rows() int
	// Reset removes the rows. It keeps the buffers, unless far smaller ones have been enough of late.
	Reset()
	// Capacity returns the size of the buffers in bytes.
	Capacity() int
	// Insert stores all of the rows or none, and keeps them for a retry. While token is in the store's window
	// of recent tokens, a repeat stores nothing. Every error except ErrRowsRejected is temporary.
	Insert(ctx context.Context, token string) error
}
