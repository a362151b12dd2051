package engine

import (
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// evaluate sets the container, host and ingestion time of the block's events and runs every detector of the
// bundle on every message.
func (w *worker) evaluate(block *block) {
	began := time.Now()
	block.correlation = w.correlationOf(block.bundle)
	for i := range block.messages {
		message := &block.messages[i]
		batch := message.batch
		pipeline.ResolveReferences(batch)
		for _, event := range batch.Events {
			event.Ingested = block.time
		}
		if len(batch.Events) == 0 {
			continue
		}
		// After a panic all detectors run again on this message, one event at a time.
		for _, detector := range block.bundle.Detectors {
			ok := false
			if block.correlation.isOf(detector) {
				ok = w.evaluateSignals(block, message)
			} else {
				ok = runDetector(detector, batch.Events)
			}
			if !ok {
				w.evaluateSeparately(block, message)
				break
			}
		}
	}
	w.metrics.observeStage("evaluate", began)
}

// evaluateSeparately evaluates the events of a message again, one by one, after a detector panicked. An event
// on which a detector panics has no verdict of that detector, not even those written before the panic. Its
// other verdicts, and all verdicts of the other events, stay. The signals of the message are found when they are written.
func (w *worker) evaluateSeparately(block *block, message *message) {
	w.deferSignals(block, message)
	events := message.batch.Events
	for i, event := range events {
		event.Verdicts = nil
		for _, detector := range block.bundle.Detectors {
			before, ok := event.Verdicts, false
			if block.correlation.isOf(detector) {
				_, ok = block.correlation.find(events[i : i+1])
			} else {
				ok = runDetector(detector, events[i:i+1])
			}
			if !ok {
				event.Verdicts = before
				w.metrics.detectorPanics.Add(1)
				w.logWarning(w.throttles.panic, "detector panicked",
					"event", event.IDText(), "dataset", event.Dataset.Name())
			}
		}
	}
}

// runDetector runs a detector on events. It reports whether the detector returned without a panic.
func runDetector(d pipeline.Detector, events []*pipeline.Event) (ok bool) {
	defer func() { ok = recover() == nil }()
	d.Evaluate(events)
	return
}

// Bounds of what the signals of a message take while they are found. They depend on nothing but the events, so that a
// replay finds the same signals in the same order.
const (
	// signalEvents is the number of events whose signals are found at a time.
	signalEvents = 64
	// signalChunkBytes is the size from which on the signals of a message are a chunk.
	signalChunkBytes = 256 << 10
)

// evaluateSignals runs the signalDetector on the events of a message, and keeps their signals while the memory of the engine
// has room. Where it has not, they are found again when they are written: memory is what a block of many signals must not
// take, and a worker that waited for it would wait for itself. It reports whether the detector returned without a panic.
func (w *worker) evaluateSignals(block *block, message *message) (ok bool) {
	aggregator := correlate.NewAggregator(block.correlation.rules)
	kept := 0
	for from := 0; from < len(message.batch.Events); from += signalEvents {
		events := message.batch.Events[from:min(from+signalEvents, len(message.batch.Events))]
		if message.signalsDeferred {
			if ok = runDetector(block.correlation.signalDetector, events); !ok {
				return false
			}
			continue
		}
		signals, ok := block.correlation.find(events)
		if !ok {
			return false
		}
		w.addSignals(aggregator, message, from, signals)
		if added := int64(kept + aggregator.Bytes()); added > message.signalBytes {
			if !w.memory.TryTake(added - message.signalBytes) {
				w.deferSignals(block, message)
				continue
			}
			block.memory += added - message.signalBytes
			message.signalBytes = added
		}
		if aggregator.Bytes() >= signalChunkBytes {
			kept += aggregator.Bytes()
			message.signals = append(message.signals, aggregator.Take())
		}
	}
	if !message.signalsDeferred && aggregator.Bytes() > 0 {
		message.signals = append(message.signals, aggregator.Take())
	}
	return true
}

// addSignals adds the signals of events of a message, the first of which has the index from.
func (w *worker) addSignals(aggregator *correlate.Aggregator, message *message, from int, signals []correlate.Signal) {
	for i := range signals {
		signal := &signals[i]
		signal.Index += uint32(from)
		signal.Partition, signal.Offset = w.source.Partition, message.record.Offset
		signal.AlertEvent = message.batch.Events[signal.Index]
		aggregator.Add(signal)
	}
}

// deferSignals drops the signals of a message: they are found again when they are written.
func (w *worker) deferSignals(block *block, message *message) {
	w.memory.Release(message.signalBytes)
	block.memory -= message.signalBytes
	message.signals, message.signalBytes, message.signalsDeferred = nil, 0, true
}

// eachChunk calls add with the signals of a message, in the same chunks whether they were kept or are found again.
func (w *worker) eachChunk(block *block, message *message, add func([]correlate.Signal) error) error {
	for _, chunk := range message.signals {
		if err := add(chunk); err != nil {
			return err
		}
	}
	if !message.signalsDeferred {
		return nil
	}
	aggregator := correlate.NewAggregator(block.correlation.rules)
	for from := 0; from < len(message.batch.Events); from += signalEvents {
		events := message.batch.Events[from:min(from+signalEvents, len(message.batch.Events))]
		w.addSignals(aggregator, message, from, block.correlation.findAgain(events))
		if aggregator.Bytes() >= signalChunkBytes {
			if err := add(aggregator.Take()); err != nil {
				return err
			}
		}
	}
	return add(aggregator.Take())
}
