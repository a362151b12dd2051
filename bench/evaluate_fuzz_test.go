package main

import (
	"testing"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/lineartest"
)

// FuzzEvaluate takes a batch through all that the engine does with it between its decoding and its insert: the shipped
// rules, a feed, the classifier, the grouping of alerts and the columns of the store; and prints its events. A panic
// in one of these would stop the partition that holds the batch.
func FuzzEvaluate(f *testing.F) {
	bundle, err := newBundle(0, false)
	if err != nil {
		f.Fatal(err)
	}
	for _, event := range mixedEvents(30) {
		batches, err := encodeBatches([]*pipeline.Event{event}, 1)
		if err != nil {
			f.Fatal(err)
		}
		for _, list := range batches {
			for _, batch := range list {
				f.Add(batch)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lineartest.Default.Check(t, len(data), func() {
			var batch pipeline.Batch
			if batch.UnmarshalVTUnsafe(data) != nil || len(batch.Events) > 100 {
				return
			}
			pipeline.ResolveReferences(&batch)
			for _, event := range batch.Events {
				event.Verdicts, event.Ingested = nil, 1
			}
			for _, detector := range bundle.Detectors {
				detector.Evaluate(batch.Events)
			}
			grouper, columns := alerts.NewGrouper(alerts.DefaultGrouper(), 0), clickhouse.NewColumnBlock()
			for i, event := range batch.Events {
				grouper.AddVerdicts(event, batch.Shipped, 7)
				columns.Append(event, pipeline.Position{Offset: 7, Index: uint32(i)}, "tidegate.events")
				pipeline.AppendJSON(nil, event)
			}
			grouper.Flush()
		})
	})
}
