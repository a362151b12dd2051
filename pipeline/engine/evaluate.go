package engine

import (
	"time"

	"tidegate/pipeline"
)

// evaluate sets the container, host and ingestion time of the block's events and runs every detector of the
// bundle on every message.
func (w *worker) evaluate(block *block) {
	began := time.Now()
	block.correlation = correlationOf(block.bundle)
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
			if !message.runDetector(detector, block.correlation, batch.Events) {
				w.evaluateSeparately(block, message)
				break
			}
		}
	}
	w.metrics.observeStage("evaluate", began)
}

// evaluateSeparately evaluates the events of a message again, one by one, after a detector panicked. An event
// on which a detector panics has no verdict of that detector, not even those written before the panic. Its
// other verdicts, and all verdicts of the other events, stay.
func (w *worker) evaluateSeparately(block *block, message *message) {
	message.signals = nil
	events := message.batch.Events
	for i, event := range events {
		event.Verdicts = nil
		for _, detector := range block.bundle.Detectors {
			before, signals := event.Verdicts, len(message.signals)
			ok := message.runDetector(detector, block.correlation, events[i:i+1])
			for j := range message.signals[signals:] {
				message.signals[signals+j].Index = uint32(i)
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

// runDetector runs a detector on events of the message, and adds their signals if it is the correlator. It reports whether
// the detector returned without a panic.
func (m *message) runDetector(d pipeline.Detector, c *correlation, events []*pipeline.Event) (ok bool) {
	defer func() { ok = recover() == nil }()
	if c != nil && d == pipeline.Detector(c.correlator) {
		m.signals = append(m.signals, c.Signals(events)...)
	} else {
		d.Evaluate(events)
	}
	return
}
