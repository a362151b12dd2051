package engine

import (
	"errors"
	"fmt"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
)

// Bounds of one message. A collector's batch is below 1 MiB encoded and takes some 5 MB once decoded.
const (
	maxEventsPerBatch = 100_000
	maxBatchBytes     = 64 << 20 // once decoded
)

// decodeBatch decodes the value of a record that measureRecord has measured. The strings of the returned batch
// alias the value. On an error, reason is the label of the metric and of the dead letter.
func (w *worker) decodeBatch(record consumer.Record) (batch *pipeline.Batch, reason string, err error) {
	// A panic of the decoder costs one message and not the process.
	defer func() {
		if r := recover(); r != nil {
			batch, reason, err = nil, "decode", fmt.Errorf("decoder panicked: %v", r)
		}
	}()
	if record.Err != nil {
		return nil, "unreadable", record.Err
	}
	size := measurementOf(record)
	if size.err != nil {
		return nil, "decode", size.err
	}
	if size.events > maxEventsPerBatch {
		return nil, "too_many_events", fmt.Errorf("%d events in one batch, %d are allowed", size.events, maxEventsPerBatch)
	}
	if total := size.bytes + size.shared; total > maxBatchBytes {
		return nil, "too_large", fmt.Errorf("the batch takes %d bytes once decoded, %d are allowed", total, maxBatchBytes)
	}

	batch = pipeline.BatchFromVTPool()
	if err := batch.UnmarshalVTUnsafe(record.Value); err != nil {
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
