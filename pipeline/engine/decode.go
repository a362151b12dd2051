package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"tidegate/pipeline"
)

// maxEventsPerBatch bounds the events of one message. A hostile message of empty events takes 200 times its
// size in memory once decoded; a collector's batches are below 1 MiB.
const maxEventsPerBatch = 100_000

// decodeBatch decodes the value of a record. The strings of the returned batch alias value. events and
// countErr are the results of countEvents. On an error, reason is the label of the metric and of the dead
// letter.
func (w *worker) decodeBatch(
	value []byte, events int, countErr error,
) (batch *pipeline.Batch, reason string, err error) {
	// A panic of the decoder costs one message and not the process.
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
		return nil, "decode", err // the batch is not pooled: its state is unknown
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

// validateBatch checks the guarantees of every collector: schema, batch id, partition and event ids. It
// clears the fields that only the engine and its detectors write, so that a batch cannot carry verdicts or an
// ingestion time of its own.
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

// Numbers of event.proto and of the protobuf encoding, for countEvents, which does not use the generated
// code. TestCountEventsFollowsTheSchema compares them with the generated code.
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

// countEvents returns the number of events in an encoded Batch, so that the worker can check before decoding
// whether a message fits into the block. It walks over the fields at the top level and skips their content.
func countEvents(data []byte) (events int, err error) {
	// Invariant: data begins at the tag of a field.
	for len(data) > 0 {
		// Fast path. Nearly every field is an event of 128 to 16,383 bytes: one byte of tag, two of length.
		if len(data) > 2 && data[0] == batchEventsTag && data[1]&0x80 != 0 && data[2]&0x80 == 0 {
			if size := 3 + (int(data[1]&0x7f) | int(data[2])<<7); size <= len(data) {
				events++
				data = data[size:]
				continue
			}
		}

		// The tag holds the field number and, in its lowest three bits, the wire type.
		tag, width := binary.Uvarint(data)
		if width <= 0 {
			return 0, errTruncated
		}
		data = data[width:]

		// The wire type determines the size of the content; only wireBytes has a length in front.
		size := uint64(0)
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
				events++
			}
		case wireFixed32:
			size = 4
		default:
			return 0, fmt.Errorf("unknown wire type %d", tag&7)
		}

		// Skip the content.
		if size > uint64(len(data)) {
			return 0, errTruncated
		}
		data = data[size:]
	}
	return events, nil
}
