package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// A message is one batch in a block. What is not to be inserted (a repeat, a dead letter) is not in a block's messages.
type message struct {
	record       consumer.Record
	batch        *pipeline.Batch
	stamp        pipeline.BatchID
	deadLettered bool // the store refused it for good
}

// A block is the messages [from, end) of the partition, as one worker deals with them.
type block struct {
	from, end     int64
	time          int64 // event.ingested, ns
	bundle        *pipeline.Bundle
	messages      []message
	deadLetters   []consumer.DeadLetter // what could not be decoded
	rows          int
	bytes         int64
	newestShipped int64 // of the newest record
	replayed      bool  // an open intent was found: the block may be done in part
	intentTime    time.Time
}

func (b *block) reset(from int64) {
	clear(b.messages)
	clear(b.deadLetters)
	*b = block{from: from, end: from, messages: b.messages[:0], deadLetters: b.deadLetters[:0]}
}

// release gives the events back. Verdicts are let go, not pooled: a detector may have put the same one on many events.
func (b *block) release() {
	for i := range b.messages {
		for _, e := range b.messages[i].batch.Events {
			e.Verdicts = nil
		}
		pipeline.ReleaseBatch(b.messages[i].batch)
	}
	clear(b.messages)
	b.messages = b.messages[:0]
}

// maxEventsPerBatch is how many events one message may hold: a hostile one of empty events would take 200 times its size in memory. A
// collector's batches are below 1 MiB.
const maxEventsPerBatch = 100_000

// addRecord takes one record into the block; n and bad are what countEvents says of it. An error says that ctx has ended.
func (w *worker) addRecord(ctx context.Context, b *block, r consumer.Record, n int, bad error) error {
	b.end = r.Offset + 1
	b.bytes += int64(len(r.Value))
	b.newestShipped = max(b.newestShipped, r.Time)
	w.metrics.messages.Add(1)

	batch, reason, err := w.decodeBatch(r.Value, n, bad)
	if err != nil {
		b.deadLetters = append(b.deadLetters, w.newDeadLetter(r, reason, err))
		return nil
	}
	n = len(batch.Events)
	w.metrics.events.Add(uint64(n))
	m := message{record: r, batch: batch, stamp: pipeline.BatchID{Epoch: batch.Epoch, Sequence: batch.Sequence}}
	copy(m.stamp.Collector[:], batch.Collector)
	if err := w.loadProducer(ctx, b, &m); err != nil {
		return err
	}
	if !w.dedup.accept(m.stamp, r.Offset) {
		w.metrics.duplicates.Add(1)
		w.metrics.duplicateEvents.Add(uint64(n))
		pipeline.ReleaseBatch(batch)
		return nil
	}
	b.rows += n
	b.messages = append(b.messages, m)
	return nil
}

// loadProducer asks the store for a life that is not remembered, where its batch is so old that it may be the repeat of one that was stored
// before what was restored at the start: a host that was off for a week, with its spool or with batches in its journal; or an
// engine that was.
func (w *worker) loadProducer(ctx context.Context, b *block, m *message) error {
	if w.dedup.hasProducer(m.stamp) || m.oldestTime() >= w.dedupSince.Add(w.cfg.Remember/2).UnixNano() {
		return nil
	}
	return w.retry(ctx, "ask for the batches of a life", func() error {
		l, ok, err := w.deps.Store.StampsOf(ctx, w.topic, w.partition, m.stamp.Collector, m.stamp.Epoch, w.rememberBefore(b.from))
		if ok && err == nil {
			w.dedup.restoreProducer(producer{l.Collector, l.Epoch}, l.Highest, l.Seen)
		}
		return err
	})
}

// oldestTime is the earliest time that a message tells of, ns: a batch that is cut again is shipped now, its lines are of then.
func (m *message) oldestTime() int64 {
	at := m.record.Time
	if m.batch.Shipped > 0 {
		at = min(at, m.batch.Shipped)
	}
	for _, e := range m.batch.Events {
		if e.Timestamp > 0 {
			at = min(at, e.Timestamp)
		}
	}
	return at
}

func (w *worker) newDeadLetter(r consumer.Record, reason string, err error) consumer.DeadLetter {
	return consumer.DeadLetter{Topic: w.topic, Partition: w.p.ID, Offset: r.Offset, Stage: "engine", Reason: reason, Err: err, Key: r.Key, Value: r.Value}
}

// decodeBatch reads a batch out of a record's value, which its strings alias from then on. A batch that could not be read does not go
// back to its pool: nobody knows what state it is in.
func (w *worker) decodeBatch(value []byte, n int, bad error) (b *pipeline.Batch, reason string, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, reason, err = nil, "decode", fmt.Errorf("decoder panicked: %v", r)
		}
	}()
	if bad != nil {
		return nil, "decode", bad
	}
	if n > maxEventsPerBatch {
		return nil, "too_many_events", fmt.Errorf("%d events in one batch, %d are allowed", n, maxEventsPerBatch)
	}
	b = pipeline.BatchFromVTPool()
	if err := b.UnmarshalVTUnsafe(value); err != nil {
		return nil, "decode", err
	}
	if reason, err := validateBatch(b, w.p.ID); err != nil {
		pipeline.ReleaseBatch(b)
		return nil, reason, err
	}
	if b.Schema > pipeline.Schema {
		w.metrics.newerSchema.Add(1)
	}
	return b, "", nil
}

// validateBatch holds a batch against what every collector keeps to. What only detectors and the engine write is cleared: a batch that
// brings verdicts or an ingestion time of its own would lie.
func validateBatch(b *pipeline.Batch, partition int) (reason string, err error) {
	switch {
	case b.Schema == 0:
		return "schema", errors.New("the batch names no schema")
	case len(b.Collector) != 16 || b.Sequence == 0:
		return "stamp", fmt.Errorf("the batch has no stamp: a collector id of %d bytes, sequence %d", len(b.Collector), b.Sequence)
	case int(b.Partition) != partition:
		return "partition", fmt.Errorf("the batch was made for partition %d", b.Partition)
	}
	for _, e := range b.Events {
		if len(e.Id) != 16 {
			return "event_id", fmt.Errorf("an event's id has %d bytes", len(e.Id))
		}
		e.Verdicts, e.Ingested = nil, 0
	}
	return "", nil
}

// countEvents walks over the top level of an encoded Batch and counts field 10: whether a message fits is known before it is decoded.
func countEvents(b []byte) (n int, err error) {
	for len(b) > 0 {
		if len(b) > 2 && b[0] == 10<<3|2 && b[1]&0x80 != 0 && b[2]&0x80 == 0 { // an event of 128 to 16383 bytes: nearly all
			if size := 3 + (int(b[1]&0x7f) | int(b[2])<<7); size <= len(b) {
				n++
				b = b[size:]
				continue
			}
		}
		tag, k := binary.Uvarint(b)
		if k <= 0 {
			return 0, errTruncated
		}
		b = b[k:]
		size := uint64(0)
		switch tag & 7 {
		case 0:
			if _, k = binary.Uvarint(b); k <= 0 {
				return 0, errTruncated
			}
			size = uint64(k)
		case 1:
			size = 8
		case 2:
			v, k := binary.Uvarint(b)
			if k <= 0 {
				return 0, errTruncated
			}
			b, size = b[k:], v
			if tag>>3 == 10 {
				n++
			}
		case 5:
			size = 4
		default:
			return 0, fmt.Errorf("wire type %d is not of this protocol", tag&7)
		}
		if size > uint64(len(b)) {
			return 0, errTruncated
		}
		b = b[size:]
	}
	return n, nil
}

var errTruncated = errors.New("the batch ends in the middle")

// evaluate resolves containers, sets the block's time and lets every detector see every message.
func (w *worker) evaluate(b *block) {
	began := time.Now()
	for i := range b.messages {
		m := b.messages[i].batch
		pipeline.ResolveReferences(m)
		for _, e := range m.Events {
			e.Ingested = b.time
		}
		if len(m.Events) == 0 {
			continue
		}
		for _, d := range b.bundle.Detectors {
			if !w.runDetector(d, m.Events) {
				w.evaluateSeparately(b.bundle, m.Events)
				break
			}
		}
	}
	w.metrics.stageSeconds.WithLabelValues("judge").Observe(time.Since(began).Seconds())
}

// evaluateSeparately judges a message again, event by event, after a detector has panicked on one of them: only that event goes without
// that detector's verdict. Half a verdict that a panic left behind is taken off.
func (w *worker) evaluateSeparately(bundle *pipeline.Bundle, events []*pipeline.Event) {
	for i, e := range events {
		e.Verdicts = nil
		for _, d := range bundle.Detectors {
			before := e.Verdicts
			if !w.runDetector(d, events[i:i+1]) {
				e.Verdicts = before
				w.metrics.detectorPanics.Add(1)
				w.warnings.log(w.log, "detector panicked", "event", fmt.Sprintf("%x", e.Id), "dataset", e.Dataset.Name())
			}
		}
	}
}

func (w *worker) runDetector(d pipeline.Detector, events []*pipeline.Event) (ok bool) {
	defer func() { ok = recover() == nil }()
	d.Evaluate(events)
	return
}
