package engine

import (
	"time"

	"tidegate/pipeline"
)

// evaluate sets the container, host and ingestion time of the block's events and runs every detector of the
// bundle on every message.
func (w *worker) evaluate(block *block) {
	began := time.Now()
	for i := range block.messages {
		batch := block.messages[i].batch
		pipeline.ResolveReferences(batch)
		for _, event := range batch.Events {
			event.Ingested = block.time
		}
		if len(batch.Events) == 0 {
			continue
		}
		// After a panic all detectors run again on this message, one event at a time.
		for _, detector := range block.bundle.Detectors {
			if !runDetector(detector, batch.Events) {
				w.evaluateSeparately(block.bundle, batch.Events)
				break
			}
		}
	}
	w.metrics.observeStage("evaluate", began)
}

// evaluateSeparately evaluates the events of a message again, one by one, after a detector panicked. An event
// on which a detector panics has no verdict of that detector, not even those written before the panic. Its
// other verdicts, and all verdicts of the other events, stay.
func (w *worker) evaluateSeparately(bundle *pipeline.Bundle, events []*pipeline.Event) {
	for i, event := range events {
		event.Verdicts = nil
		for _, detector := range bundle.Detectors {
			before := event.Verdicts
			if !runDetector(detector, events[i:i+1]) {
				event.Verdicts = before
				w.metrics.detectorPanics.Add(1)
				w.logWarning(w.throttles.panic, "detector panicked",
					"event", event.IDText(), "dataset", event.Dataset.Name())
			}
		}
	}
}

// runDetector reports whether the detector returned without a panic.
func runDetector(d pipeline.Detector, events []*pipeline.Event) (ok bool) {
	defer func() { ok = recover() == nil }()
	d.Evaluate(events)
	return
}
