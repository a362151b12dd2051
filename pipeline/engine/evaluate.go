package engine

import (
	"time"

	"tidegate/pipeline"
)

// evaluate resolves the containers of the block's events, sets their ingestion time and runs every detector
// of the bundle on every message.
func (w *worker) evaluate(b *block) {
	began := time.Now()
	for i := range b.messages {
		batch := b.messages[i].batch
		pipeline.ResolveReferences(batch)
		for _, e := range batch.Events {
			e.Ingested = b.time
		}
		if len(batch.Events) == 0 {
			continue
		}
		for _, detector := range b.bundle.Detectors {
			if !runDetector(detector, batch.Events) {
				w.evaluateSeparately(b.bundle, batch.Events)
				break
			}
		}
	}
	w.metrics.observeStage("evaluate", began)
}

// evaluateSeparately evaluates the events of a message again, one by one, after a detector panicked on one of
// them. Only the event on which it panics goes without the verdicts of that detector, also without those that
// it had written before the panic.
func (w *worker) evaluateSeparately(bundle *pipeline.Bundle, events []*pipeline.Event) {
	for i, event := range events {
		event.Verdicts = nil
		for _, detector := range bundle.Detectors {
			before := event.Verdicts
			if !runDetector(detector, events[i:i+1]) {
				event.Verdicts = before
				w.metrics.detectorPanics.Add(1)
				w.logWarning(w.throttles.panic, "detector panicked", "event", event.IDText(), "dataset", event.Dataset.Name())
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
