package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// TestWhatWasSeenOutlastsTheTopic: an engine that reads none of the signals that an earlier one has read knows their values, and only
// raises an alert for another one.
func TestWhatWasSeenOutlastsTheTopic(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	store := newFakeStore()
	topic := h.client.Topic(pipeline.TopicSignals)
	run := func() (stop func()) {
		_, stop = h.start(store, correlationBundle, func(_ *Config, deps *Deps) { deps.seenInterval = 100 * time.Millisecond })
		return stop
	}
	now := time.Now()
	stop := run()
	for value := range 20 {
		h.sendAt(now.Add(time.Duration(value)*time.Millisecond), fmt.Sprintf("bad g1 #%d", value), 1, 1)
	}
	h.sendAt(now, "bad g2 #5", 1, 1) // what is known of one group is not known of another
	waitUntil(t, "what was seen is stored", func() bool {
		store.mu.Lock()
		defer store.mu.Unlock()
		return len(store.seen) == 23 // 21 values of two groups
	})
	stop()
	if alert := alertOf(store, "new", "g1"); alert.Count != 0 {
		t.Errorf("%+v while the group learns", alert)
	}
	for seen, of := range store.seen {
		if of != topic || seen.Rule != "new" || seen.Version != "1" || seen.Last == 0 {
			t.Errorf("%s: %+v", of, seen)
		}
	}

	for partition := range 2 {
		h.commitOf("tidegate-engine"+SignalsGroupSuffix, topic, partition, int64(len(h.read(pipeline.TopicSignals, partition))), "")
	}
	stop = run()
	defer stop()
	later := now.Add(3 * time.Second) // behind the time of learning
	for _, line := range []string{"bad g1 #0", "bad g1 #7", "bad g1 #19", "bad g1 #33", "bad g2 #7"} {
		h.sendAt(later, line, 1, 1)
	}
	waitUntil(t, "alerts of new values", func() bool {
		return alertOf(store, "new", "g1").Count > 0 && alertOf(store, "new", "g2").Count > 0
	})
	time.Sleep(300 * time.Millisecond)
	for group, want := range map[string]string{"g1": "bad g1 #33", "g2": "bad g2 #7"} {
		if alert := alertOf(store, "new", group); alert.Count != 1 || alert.Evidence != want {
			t.Errorf("%s: %d events, %q", group, alert.Count, alert.Evidence)
		}
	}
}

// TestPlaceStaysBeforeWhatIsNotStored: a fold that begins at the committed place sees again every signal whose value is not stored, also one
// that waits for the watermark.
func TestPlaceStaysBeforeWhatIsNotStored(t *testing.T) {
	second := int64(time.Second)
	f := &foldWorker{state: &foldState{offset: 40, watermark: 400 * second, latestEnd: 401 * second}}
	for _, c := range []struct {
		seenWatermark int64
		want          []int64 // offsets of the checkpoints
	}{
		{0, []int64{10, 20, 30, 40}},
		{200 * second, []int64{10, 20, 30, 40}}, // a signal that ended at 202 s was read before 20, and waits
		{203 * second, []int64{20, 30, 40}},
		{400 * second, []int64{30, 40}},
	} {
		f.checkpoints = nil
		for i := range int64(3) {
			at := (i + 1) * 100 * second
			f.checkpoints = append(f.checkpoints, &foldState{offset: (i + 1) * 10, watermark: at, latestEnd: at + 2*second})
		}
		f.seenWatermark = c.seenWatermark
		f.keepCheckpoint()
		var got []int64
		for _, checkpoint := range f.checkpoints {
			got = append(got, checkpoint.offset)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("stored up to %d s: checkpoints %v, want %v", c.seenWatermark/second, got, c.want)
		}
	}
}

// TestChangedRuleOfValuesLearnsAnew: what the version before has seen is another rule's.
func TestChangedRuleOfValuesLearnsAnew(t *testing.T) {
	store := newFakeStore()
	seen := pipeline.SeenValue{Rule: "new", Version: "1", Group: correlate.GroupHash("new", "g1") / 2 * 2, First: 1, Last: 1}
	value := seen
	value.First, value.Value = 0, 7
	if err := store.InsertSeenValues(t.Context(), "tidegate.signals", []pipeline.SeenValue{seen, value}); err != nil {
		t.Fatal(err)
	}
	w, _ := newTestWorker(store)
	w.source = pipeline.TopicPartition{Topic: "tidegate.signals"}
	w.foldPartitions.Store(2)
	f := &foldWorker{worker: w}
	f.fold = correlate.New(nil, f.foldLimits())
	load := func(version string) int {
		rule := *lineRules[slices.IndexFunc(lineRules, func(r *correlate.Rule) bool { return r.ID == "new" })]
		rule.Version = version
		f.correlation = &correlation{rules: []*correlate.Rule{&rule}}
		f.fold.SetRules(f.correlation.rules)
		if err := f.restoreSeen(t.Context()); err != nil {
			t.Fatal(err)
		}
		return f.fold.Values()
	}
	for _, c := range []struct {
		version string
		want    int
	}{{"1", 1}, {"2", 0}, {"1", 1}} {
		if got := load(c.version); got != c.want {
			t.Errorf("version %s: %d values, want %d", c.version, got, c.want)
		}
	}
}

// TestRuleThatComesBackKnowsWhatItHasSeen: its file was gone for a moment, and no other rule over several events was there.
func TestRuleThatComesBackKnowsWhatItHasSeen(t *testing.T) {
	store := newFakeStore()
	seen := pipeline.SeenValue{Rule: "new", Version: "1", Group: correlate.GroupHash("new", "g1") / 2 * 2, First: 1, Last: 1}
	value := seen
	value.First, value.Value = 0, 7
	if err := store.InsertSeenValues(t.Context(), "tidegate.signals", []pipeline.SeenValue{seen, value}); err != nil {
		t.Fatal(err)
	}
	w, _ := newTestWorker(store)
	w.source = pipeline.TopicPartition{Topic: "tidegate.signals"}
	w.foldPartitions.Store(2)
	var bundle *pipeline.Bundle
	w.deps.Bundle = func() *pipeline.Bundle { return bundle }
	f := &foldWorker{worker: w}
	f.fold = correlate.New(nil, f.foldLimits())
	for i, want := range []int{1, 0, 1} {
		bundle = correlationBundle
		if i == 1 {
			bundle = testBundle
		}
		if err := f.loadRules(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.fold.Values(); got != want {
			t.Errorf("load %d: %d values, want %d", i, got, want)
		}
	}
}
