package engine

import (
	"context"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// A block is the messages [from, end) of a partition on their way through a worker. The worker has one block,
// which it resets.
type block struct {
	from, end int64 // offsets
	time      int64 // event.ingested of all events, ns since 1970; 0 while the block is gathered
	bundle    *pipeline.Bundle

	messages    []message             // what is to be stored: neither duplicates nor dead letters
	deadLetters []consumer.DeadLetter // what could not be decoded
	rows        int                   // events in messages
	bytes       int64                 // of all records, also of duplicates and dead letters
	newestTime  int64                 // Kafka's time of the newest record, ns since 1970

	replayed   bool      // an intent names the block: an earlier run may have stored some of it
	intentTime time.Time // when the intent was sent to Kafka; zero in a replayed block
}

// A message is one batch in a block.
type message struct {
	record   consumer.Record // the strings of the batch alias its value
	batch    *pipeline.Batch
	id       pipeline.BatchID
	rejected bool // the store rejected it; it is a dead letter now
}

// reset empties the block and lets it begin at from.
func (b *block) reset(from int64) {
	clear(b.messages)
	clear(b.deadLetters)
	*b = block{from: from, end: from, messages: b.messages[:0], deadLetters: b.deadLetters[:0]}
}

// releaseEvents returns the events to their pool. Verdicts are dropped and not pooled: a detector may have
// written the same verdict onto many events.
func (b *block) releaseEvents() {
	for i := range b.messages {
		for _, e := range b.messages[i].batch.Events {
			e.Verdicts = nil
		}
		pipeline.ReleaseBatch(b.messages[i].batch)
	}
	clear(b.messages)
	b.messages = b.messages[:0]
}

// blockID returns the name of the block for the store.
func (w *worker) blockID(b *block) pipeline.BlockID {
	return pipeline.BlockID{TopicPartition: w.source, Start: b.from, End: b.end, Time: b.time}
}

// addRecord appends one record to the block, as a message, a duplicate or a dead letter. events and countErr
// are the results of countEvents. The error is that ctx has ended.
func (w *worker) addRecord(ctx context.Context, b *block, record consumer.Record, events int, countErr error) error {
	b.end = record.Offset + 1
	b.bytes += int64(len(record.Value))
	b.newestTime = max(b.newestTime, record.Time)
	w.metrics.messages.Add(1)

	batch, reason, err := w.decodeBatch(record.Value, events, countErr)
	if err != nil {
		b.deadLetters = append(b.deadLetters, w.newDeadLetter(record, reason, err))
		return nil
	}
	events = len(batch.Events)
	w.metrics.events.Add(uint64(events))

	msg := message{record: record, batch: batch, id: pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}}
	copy(msg.id.Collector[:], batch.Collector)
	if err := w.loadProducer(ctx, b, &msg); err != nil {
		return err
	}
	// The filter now holds all that is stored of the producer and may be repeated.
	if !w.dedup.accept(msg.id, record.Offset) {
		w.metrics.duplicates.Add(1)
		w.metrics.duplicateEvents.Add(uint64(events))
		pipeline.ReleaseBatch(batch)
		return nil
	}
	b.rows += events
	b.messages = append(b.messages, msg)
	return nil
}

// loadProducer reads the batches of a producer from the store into the duplicate filter if the message may
// repeat a batch that was stored before dedupSince: the producer is unknown and the message is old. That is
// so after a host or an engine was off for days and the collector sends what its spool or its journal kept.
func (w *worker) loadProducer(ctx context.Context, b *block, msg *message) error {
	producer := msg.id.Producer()
	if w.dedup.hasProducer(producer) || msg.oldestTime() >= w.dedupSince.Add(w.cfg.DedupLookback/2).UnixNano() {
		return nil
	}
	filter := pipeline.BatchFilter{TopicPartition: w.source, Before: w.dedupBefore(b.from), Producer: &producer}
	return w.withRetry(ctx, "query the batches of a producer", func() error {
		stored, err := w.deps.Store.StoredBatches(ctx, filter)
		if err != nil {
			return err
		}
		for _, batches := range stored {
			w.dedup.restoreProducer(batches)
		}
		return nil
	})
}

// oldestTime returns the earliest time in the message, ns since 1970. A batch that a collector forms again
// after a restart is shipped now and holds old log lines.
func (m *message) oldestTime() int64 {
	oldest := m.record.Time
	if m.batch.Shipped > 0 {
		oldest = min(oldest, m.batch.Shipped)
	}
	for _, e := range m.batch.Events {
		if e.Timestamp > 0 {
			oldest = min(oldest, e.Timestamp)
		}
	}
	return oldest
}
