package engine

import (
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
)

// FuzzSignals checks that a fold takes any messages of the signals topic, two of them each written twice: as signals, matches and a watermark, or
// as dead letters. Its state can be read again, its watermark stays behind the records, and a repeat has no matches.
func FuzzSignals(f *testing.F) {
	w, _ := newTestWorker(newFakeStore())
	now := ago(0)
	add := func(block *pipeline.SignalBlock) {
		value, err := block.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value, value[:len(value)/2])
	}
	add(blockOf(1, now, 0, now-int64(time.Second), 2))
	for i, rule := range lineRules {
		block := blockOf(0, now+int64(i), uint32(i), now, 0)
		for n := range 12 {
			at := now - int64(n)*int64(time.Second)/2
			block.Signals = append(block.Signals, &pipeline.Signal{
				Rule: rule.ID, Version: rule.Version, Step: uint32(n % len(rule.Steps)), Group: "g", Start: at, End: at, Value: int64(n), Text: "bad g",
				Count: uint64(n), First: at - 5, Last: at, Event: alertedEvent(event(n)),
			})
		}
		block.Matches = append(block.Matches, &pipeline.Matches{
			Verdict: &pipeline.Verdict{Rule: "bad_line", Group: "g", Severity: pipeline.Severity_HIGH}, Event: alertedEvent(event(1)), At: now, First: now, Last: now, Count: 3,
		})
		add(block)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		state := &foldState{sources: map[int32]foldSource{}}
		fold := &foldWorker{
			worker: w, fold: correlate.New(lineRules, correlate.DefaultLimits), correlation: newCorrelation(correlationBundle), bundle: correlationBundle,
			state: state, checkpoints: []*foldState{state.clone()}, eventPartitions: maxSources, memory: 10 * time.Second,
			grouper: alerts.NewGrouper(w.cfg.Grouping, 0),
		}
		fold.fold.KeepSeen()
		for i, value := range [][]byte{first, first, second, second} {
			block := fold.beginBlock()
			block.time = now + int64(i)
			at := now + int64(i)*int64(time.Minute)
			if err := fold.foldRecord(t.Context(), consumer.Record{Offset: int64(i), Time: at, Value: value}); err != nil {
				t.Fatal(err)
			}
			if len(fold.letters) > 1 || len(fold.letters) == 1 && len(fold.matches)+len(fold.single) > 0 {
				t.Errorf("record %d: %d dead letters, %d matches", i, len(fold.letters), len(fold.matches)+len(fold.single))
			}
			if i%2 == 1 && len(fold.single) > 0 {
				t.Errorf("a repeat has %d matches", len(fold.single))
			}
			fold.groupMatches(block)
			revisions, _ := fold.grouper.Flush()
			for _, alert := range revisions {
				if alert.Rule == "" && alert.Group == "" && alert.ID == "" || len(alert.Events) > 20 || alert.Revision == 0 {
					t.Errorf("%+v", alert)
				}
			}
			if state.watermark > at-int64(lateness) || len(state.sources) > 2 {
				t.Errorf("record %d: the watermark is %d, the record is of %d; %d sources", i, state.watermark, at, len(state.sources))
			}
			if read, err := parseFoldState(state.String()); err != nil || read.String() != state.String() {
				t.Errorf("record %d: %v, %+v", i, err, state)
			}
		}
		fold.fold.Close()
	})
}
