package pipeline

import (
	"context"
	"errors"
	"time"
)

// ErrRowsRejected is in the chain of an error of an insert when the store rejected the rows themselves:
// repeating the insert cannot help. Every other error of a store is temporary.
var ErrRowsRejected = errors.New("store rejected the rows")

// A TopicPartition names a partition of a Kafka topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// A BlockID names the block of the messages [Start, End) of a partition that was formed at Time. Time is part
// of the name because a topic that was deleted and created again has other messages at the same offsets.
type BlockID struct {
	TopicPartition
	Start, End int64 // offsets
	Time       int64 // event.ingested of all its events, ns since 1970
}

// A RowID names an event within its partition: the offset of the message and the place in the message.
type RowID struct {
	Offset int64
	Index  uint32
}

// A Producer is one collector between two starts: it numbers its batches itself.
type Producer struct {
	Collector [16]byte
	Epoch     uint64
}

// Producer returns the producer that sent the batch.
func (id BatchID) Producer() Producer { return Producer{id.Collector, id.Epoch} }

// A SequenceWindow says which batches of one producer were seen on one partition: the highest sequence, and
// which of the 64 up to it. Bit i of Seen stands for the sequence Highest-i.
type SequenceWindow struct {
	Highest, Seen uint64
}

// StoredBatches are the batches of one producer that a store holds.
type StoredBatches struct {
	Producer
	SequenceWindow
}

// A BatchFilter selects the rows of a partition from which a store computes StoredBatches.
type BatchFilter struct {
	TopicPartition
	Before   int64     // offset: only messages below it
	Since    time.Time // only rows that were ingested at or after it; the zero time selects all
	Producer *Producer // only this producer; nil selects all
}

// An EventInserter gathers events as rows of one insert. It belongs to one goroutine.
type EventInserter interface {
	// Append adds e as a row. It copies what it keeps, so that e may be released afterwards.
	Append(e *Event, at Position, topic string)
	// Rows returns how many rows were appended since the last Reset.
	Rows() int
	// Reset removes the rows and keeps the memory.
	Reset()
	// Insert stores the rows, all or none, and keeps them for a repeat. While the store remembers token, a
	// repeat stores nothing. An error is temporary unless it is ErrRowsRejected.
	Insert(ctx context.Context, token string) error
}
