package ordinaryday_test

import (
	"fmt"
	"testing"

	"tidegate/detectors/rules"
	"tidegate/detectors/rules/ordinaryday"
	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
)

// TestNothingSevereOnAnOrdinaryDay: no shipped rule of severity high or critical matches on an ordinary day.
func TestNothingSevereOnAnOrdinaryDay(t *testing.T) {
	set, err := rules.Load(rules.Default(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	bySeverity := map[string]pipeline.Severity{}
	for _, rule := range set.Rules() {
		bySeverity[rule.ID] = rule.Severity
	}
	days := uint64(2)
	if testing.Short() {
		days = 1
	}
	for seed := range days {
		fold := correlate.New(set.Correlations(), correlate.DefaultLimits)
		count, blocks, last := 0, 0, int64(0)
		datasets, hits, example := map[string]int{}, map[string]int{}, map[string]string{}
		var block []*pipeline.Event
		flush := func() {
			for _, signal := range set.Signals(block) {
				signal.Offset = int64(blocks)
				fold.Add(signal)
			}
			for _, event := range block {
				datasets[event.Dataset.Name()]++
				last = max(last, event.End())
				for _, verdict := range event.Verdicts {
					hits[verdict.Rule]++
					example[verdict.Rule] = verdict.Evidence
				}
			}
			blocks++
			block = block[:0]
		}
		ordinaryday.Generate(seed+1, func(event *pipeline.Event) {
			count++
			if block = append(block, event); len(block) == 1000 {
				flush()
			}
		})
		flush()
		for _, match := range fold.Advance(last + 1) {
			hits[match.Rule.ID]++
			example[match.Rule.ID] = match.Text
		}
		t.Logf("seed %d: %d events: %v", seed+1, count, datasets)
		if count < 200_000 {
			t.Errorf("seed %d: only %d events", seed+1, count)
		}
		for rule, n := range hits {
			line := fmt.Sprintf("seed %d: %s %s %d: %.300s", seed+1, bySeverity[rule].Name(), rule, n, example[rule])
			if bySeverity[rule] >= pipeline.Severity_HIGH {
				t.Error(line)
			} else {
				t.Log(line)
			}
		}
	}
}
