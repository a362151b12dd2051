package engine

import (
	"context"
	"math"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
)

// A block is the messages [from, end) of a partition on their way through a worker. A worker has a single
// block, which it resets before each use.
type block struct {
	from, end   int64 // offsets
	first       int64 // offset of the first record; offsets from from on may have been lost before it
	time        int64 // event.ingested of all events, ns since 1970; 0 while the block is gathered
	bundle      *pipeline.Bundle
	correlation *correlation // of the bundle; nil: it has no rules over several events

	messages    []message             // messages to store, without duplicates and dead letters
	deadLetters []consumer.DeadLetter // records that could not be decoded
	rows        int                   // events in messages
	bytes       int64                 // of all records, including duplicates and dead letters
	memory      int64                 // taken for all records
	newestTime  int64                 // Kafka timestamp of the newest record, ns since 1970
	counts      blockCounts

	signalPartitions int // of the signals topic, over which the block is distributed; 0: it has no signals

	replayed   bool      // an intent names the block: an earlier run may have stored some of its rows
	intentTime time.Time // when the intent was sent to Kafka; zero in a replayed block
	intent     string    // as it is committed; empty if it is not
	confirmed  time.Time // when a commit of the intent that succeeded was sent
}

// blockCounts holds what the ledger counts when the block is finished: a block that is gathered again is
// counted once.
type blockCounts struct {
	messages, events, duplicates, duplicateEvents uint64
	rows, alreadyStored, rejected                 uint64 // events
}

// A message is one batch in a block.
type message struct {
	record    consumer.Record // the strings of the batch alias its value
	batch     *pipeline.Batch
	id        pipeline.BatchID
	rejection error // why the store rejects the message, of which no row is stored; nil: it does not

	signals         [][]correlate.Signal // joined, in chunks
	signalBytes     int64                // that they take, as part of block.memory
	signalsDeferred bool                 // they are found when they are written
}

// reset empties the block and sets its first offset to from.
func (b *block) reset(from int64) {
	clear(b.messages)
	clear(b.deadLetters)
	*b = block{from: from, end: from, messages: b.messages[:0], deadLetters: b.deadLetters[:0]}
}

// releaseEvents returns the events to their pool. Verdicts are dropped and not pooled, because a detector may
// share one verdict between many events.
func (b *block) releaseEvents() {
	for i := range b.messages {
		for _, event := range b.messages[i].batch.Events {
			event.Verdicts = nil
		}
		pipeline.ReleaseBatch(b.messages[i].batch)
	}
	clear(b.messages)
	b.messages = b.messages[:0]
}

// releaseBlock releases the events of a block and gives its memory back.
func (w *worker) releaseBlock(block *block) {
	block.releaseEvents()
	clear(block.deadLetters)
	block.deadLetters = block.deadLetters[:0]
	w.memory.Release(block.memory)
	block.memory = 0
}

// blockID returns the name of the block for the store.
func (w *worker) blockID(block *block) pipeline.BlockID {
	return pipeline.BlockID{TopicPartition: w.source, Start: block.from, End: block.end, Time: block.time}
}

// addRecord adds one record to the block: as a message, as a dead letter, or as a duplicate that is only
// counted. It fails only if ctx has ended.
func (w *worker) addRecord(ctx context.Context, block *block, record consumer.Record) error {
	block.end = record.Offset + 1
	block.bytes += int64(len(record.Value))
	block.memory += measurementOf(record).memory
	block.newestTime = max(block.newestTime, record.Time)
	if block.counts.messages++; block.counts.messages == 1 {
		block.first = record.Offset
	}

	// A record that cannot be decoded becomes a dead letter of the block.
	batch, reason, err := w.decodeBatch(record)
	if err != nil {
		block.deadLetters = append(block.deadLetters, w.newDeadLetter(record, reason, err))
		return nil
	}
	events := len(batch.Events)
	block.counts.events += uint64(events)

	// The duplicate filter needs all stored batches of the producer that this one may repeat.
	msg := message{record: record, batch: batch, id: pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}}
	copy(msg.id.Collector[:], batch.Collector)
	if err := w.loadProducer(ctx, block, &msg); err != nil {
		return err
	}
	if !w.dedup.accept(msg.id, record.Offset) {
		block.counts.duplicates++
		block.counts.duplicateEvents += uint64(events)
		pipeline.ReleaseBatch(batch)
		return nil
	}
	block.rows += events
	block.messages = append(block.messages, msg)
	return nil
}

// loadProducer reads the batches of a producer from the store into the duplicate filter if the message may
// repeat a batch that was stored before dedupSince: the filter does not hold the producer, and the message is
// old. This happens after a host or an engine was off for days, when the collector sends the batches of its
// spool or its journal.
func (w *worker) loadProducer(ctx context.Context, block *block, msg *message) error {
	producer := msg.id.Producer()
	// The margin of half the lookback covers clocks that differ.
	if w.dedup.hasProducer(producer) || msg.oldestTime() >= w.dedupSince.Add(w.cfg.DedupLookback/2).UnixNano() {
		return nil
	}
	filter := pipeline.BatchFilter{
		TopicPartition: w.source, Before: block.from, Except: w.openBlock.Time, Producer: &producer,
	}
	return w.withRetry(ctx, "query the batches of a producer", func() error {
		if w.offsetsAmbiguous {
			filter.Before = math.MaxInt64
			ranges, err := w.deps.Store.SequenceRanges(ctx, filter)
			if err == nil {
				w.dedup.replaceRanges(producer, ranges)
			}
			return err
		}
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

// shippedTime returns when the batch was shipped, ns since 1970.
func (m *message) shippedTime() int64 {
	if m.batch.Shipped > 0 {
		return m.batch.Shipped
	}
	return m.record.Time
}

// oldestTime returns the earliest time in the message, ns since 1970. It includes the times of the events,
// because a batch that a collector forms again after a restart has a new ship time and old log lines.
func (m *message) oldestTime() int64 {
	oldest := m.record.Time
	if m.batch.Shipped > 0 {
		oldest = min(oldest, m.batch.Shipped)
	}
	for _, event := range m.batch.Events {
		if event.Timestamp > 0 {
			oldest = min(oldest, event.Timestamp)
		}
	}
	return oldest
}
