package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tidegate/pipeline"
)

// maxEventsPerBatch bounds the events of one message: a hostile message of empty events would take 200 times
// its size in memory. A collector's batches are below 1 MiB.
const maxEventsPerBatch = 100_000

// decodeBatch decodes the value of a record; the strings of the batch alias value from then on. On an error,
// reason is the word for the metric and the dead letter.
func (w *worker) decodeBatch(value []byte, events int, countErr error) (batch *pipeline.Batch, reason string, err error) {
	defer func() {
		if r := recover(); r != nil {
			batch, reason, err = nil, "decode", fmt.Errorf("decoder panicked: %v", r)
		}
	}()
	if countErr != nil {
		return nil, "decode", countErr
	}
	if events > maxEventsPerBatch {
		return nil, "too_many_events", fmt.Errorf("%d events in one batch, %d are allowed", events, maxEventsPerBatch)
	}

	batch = pipeline.BatchFromVTPool()
	if err := batch.UnmarshalVTUnsafe(value); err != nil {
		return nil, "decode", err // the batch does not go back to its pool: its state is unknown
	}
	if reason, err := validateBatch(batch, w.partition.ID); err != nil {
		pipeline.ReleaseBatch(batch)
		return nil, reason, err
	}
	if batch.Schema > pipeline.Schema {
		w.metrics.newerSchema.Add(1)
	}
	return batch, "", nil
}

// validateBatch checks what every collector guarantees. It clears the fields of the events that only the
// engine and its detectors write, so that a batch cannot bring verdicts or an ingestion time of its own.
func validateBatch(batch *pipeline.Batch, partition int) (reason string, err error) {
	switch {
	case batch.Schema == 0:
		return "schema", errors.New("the batch names no schema")
	case len(batch.Collector) != 16 || batch.Sequence == 0:
		return "batch_id", fmt.Errorf("the batch has no id: a collector id of %d bytes, sequence %d",
			len(batch.Collector), batch.Sequence)
	case int(batch.Partition) != partition:
		return "partition", fmt.Errorf("the batch was made for partition %d", batch.Partition)
	}
	for _, event := range batch.Events {
		if len(event.Id) != 16 {
			return "event_id", fmt.Errorf("an event's id has %d bytes", len(event.Id))
		}
		event.Verdicts, event.Ingested = nil, 0
	}
	return "", nil
}

// Numbers of event.proto and of the protobuf encoding that countEvents reads without the generated code;
// TestCountEventsKnowsTheSchema holds them against it.
const (
	batchEventsField = 10 // Batch.events

	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5

	batchEventsTag = batchEventsField<<3 | wireBytes
)

// errTruncated is the error of a batch that ends within a field.
var errTruncated = errors.New("the batch ends within a field")

// countEvents returns the number of events in an encoded Batch: whether a message fits into the block is
// known before it is decoded. It walks over the top level of the encoding and skips the content of each
// field.
func countEvents(data []byte) (n int, err error) {
	for len(data) > 0 {
		// Nearly every field is an event of 128 to 16,383 bytes: a tag of one byte and a length of two.
		if len(data) > 2 && data[0] == batchEventsTag && data[1]&0x80 != 0 && data[2]&0x80 == 0 {
			if size := 3 + (int(data[1]&0x7f) | int(data[2])<<7); size <= len(data) {
				n++
				data = data[size:]
				continue
			}
		}

		tag, width := binary.Uvarint(data)
		if width <= 0 {
			return 0, errTruncated
		}
		data = data[width:]
		size := uint64(0) // of the content
		switch tag & 7 {
		case wireVarint:
			if _, width = binary.Uvarint(data); width <= 0 {
				return 0, errTruncated
			}
			size = uint64(width)
		case wireFixed64:
			size = 8
		case wireBytes:
			length, width := binary.Uvarint(data)
			if width <= 0 {
				return 0, errTruncated
			}
			data, size = data[width:], length
			if tag>>3 == batchEventsField {
				n++
			}
		case wireFixed32:
			size = 4
		default:
			return 0, fmt.Errorf("wire type %d is not of this protocol", tag&7)
		}
		if size > uint64(len(data)) {
			return 0, errTruncated
		}
		data = data[size:]
	}
	return n, nil
}
