package backtest_test

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"tidegate/detectors/backtest"
	"tidegate/detectors/rules"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded/embeddedtest"
)

// TestChangedRulesAreCompared: rules that are added, removed and changed, with the matches that come and go.
func TestChangedRulesAreCompared(t *testing.T) {
	store := embeddedtest.Store(t, "changed", "native")
	block := clickhouse.NewColumnBlock()
	end := time.Now()
	for i := range 30 {
		block.Append(&pipeline.Event{
			Id: binary.BigEndian.AppendUint64(make([]byte, 8), uint64(i+1)), Dataset: pipeline.Dataset_LOG, Ingested: end.UnixNano(),
			Timestamp: end.Add(-time.Duration(i+1) * time.Minute).UnixNano(), Container: &pipeline.Container{Id: "c"},
			Log: &pipeline.LogLine{Message: fmt.Sprintf("line %d", i%10)},
		}, pipeline.Position{Offset: int64(i)}, "events")
	}
	if err := store.Insert(t.Context(), block, "a"); err != nil {
		t.Fatal(err)
	}

	compile := func(conditions map[string]string) *rules.Set {
		text := "rules:\n"
		for id, when := range conditions {
			text += fmt.Sprintf("- {id: %s, title: t, severity: low, when: '%s'}\n", id, when)
		}
		set, err := rules.Compile(rules.Default(), []rules.Source{{Name: "test", Data: []byte(text)}}, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	before := compile(map[string]string{
		"same": `message == "line 1"`, "removed": `message == "line 2"`, "changed": `message in ["line 3", "line 4", "line 5"]`,
	})
	after := compile(map[string]string{
		"same": `message == "line 1"`, "added": `message == "line 7"`, "changed": `message in ["line 4", "line 6"]`,
	})
	options := backtest.Options{Store: store.Config(), From: end.Add(-time.Hour), To: end, Grouping: alerts.DefaultGrouper()}
	want := []string{"added added: 0 3, 3 0, 3 0", "changed changed: 9 6, 3 6, 3 5", "removed removed: 3 0, 0 3, 0 3"}
	changes := backtest.Changes(before, after)
	if len(changes) != len(want) {
		t.Fatalf("%+v", changes)
	}
	for i, c := range changes {
		if err := c.Compare(t.Context(), options, before, after); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %s: %d %d, %d %d, %d %d", c.Rule, c.Kind, c.Before, c.After, c.Added, c.Removed, len(c.AddedSamples), len(c.RemovedSamples))
		if got != want[i] {
			t.Errorf("%s, want %s", got, want[i])
		}
	}
}
