package engine

import (
	"fmt"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// TestReplayDistributesSignalsAsBefore: a block of which some messages were written before the signals topic was grown is written
// again to the partitions of then. A fold drops what it has read, and each signal and match is read once in all.
func TestReplayDistributesSignalsAsBefore(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	w.deps.Kafka = h.client
	detector, at := newManySignals(correlate.Sequence, 3), ago(time.Hour)
	write := func(partitions int) {
		t.Helper()
		block := blockOfEvents(detector, at, 1, 100)
		w.evaluate(block)
		block.signalPartitions = partitions
		if err := w.writeSignals(t.Context(), block); err != nil {
			t.Fatal(err)
		}
	}
	write(2)
	h.grow(pipeline.TopicSignals, 5)
	w.signalPartitions.set(0)
	write(2)
	signals, matches := 0, uint64(0)
	for partition := range 5 {
		state := &foldState{sources: map[int32]foldSource{}}
		blocks := readSignals(t, h, partition)
		for i, block := range blocks {
			if state.read(int64(i), at, block) {
				signals += len(block.Signals)
				for _, m := range block.Matches {
					matches += m.Count
				}
			}
		}
		if partition >= 2 && len(blocks) > 0 || partition < 2 && len(blocks) < 2 {
			t.Errorf("partition %d has %d messages", partition, len(blocks))
		}
	}
	if signals != 300 || matches != 100 {
		t.Errorf("%d signals and %d matches are read", signals, matches)
	}

	// A new block goes to all of them.
	at++
	write(5)
	for partition := range 5 {
		if blocks := readSignals(t, h, partition); len(blocks) == 0 || blocks[len(blocks)-1].Time != at {
			t.Errorf("partition %d has no message of the new block", partition)
		}
	}
}

// TestSignalsTopicThatIsGrown: engines go on, with the groups on other partitions. Each match of a rule over one event is counted
// once, and so is each event of a rule over several whose window lies on one side of the moment.
func TestSignalsTopicThatIsGrown(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	store := newFakeStore()
	engine, stop := h.start(store, correlationBundle, nil)
	groups := 6
	send := func() {
		now := time.Now()
		for group := range groups {
			h.sendAt(now, fmt.Sprint("bad grown", group), 2, 3)
		}
	}
	counts := func(rule string) (sum uint64) {
		store.mu.Lock()
		defer store.mu.Unlock()
		newest := map[string]pipeline.Alert{}
		for _, alert := range store.alerts {
			if alert.Rule == rule && alert.Revision > newest[alert.ID].Revision {
				newest[alert.ID] = alert
			}
		}
		for _, alert := range newest {
			sum += alert.Count
		}
		return sum
	}
	waitUntil(t, "both partitions say how far they are", func() bool { return len(readSignals(t, h, 0)) > 3 })
	send()
	waitUntil(t, "alerts", func() bool { return counts("burst") == uint64(groups*6) && counts("bad_line") == uint64(groups*6) })
	h.grow(pipeline.TopicSignals, 5)
	engine.signalPartitions.set(0)
	waitUntil(t, "the new partitions are written and folded", func() bool {
		for partition := range 5 {
			if offset, _ := h.committedOf("tidegate-engine"+SignalsGroupSuffix, h.client.Topic(pipeline.TopicSignals), partition); offset <= 0 {
				return false
			}
		}
		return true
	})
	send()
	waitUntil(t, "alerts on the grown topic", func() bool {
		return counts("burst") == uint64(2*groups*6) && counts("bad_line") == uint64(2*groups*6)
	})
	stop()

	// The next engine raises nothing again.
	_, stop = h.start(store, correlationBundle, nil)
	h.sendAt(time.Now(), "bad other", 2, 3)
	waitUntil(t, "an alert of six other events", func() bool { return alertOf(store, "burst", "other").Count == 6 })
	stop()
	if counts("burst") != uint64(2*groups*6+6) || counts("bad_line") != uint64(2*groups*6+6) {
		t.Errorf("%d and %d events", counts("burst"), counts("bad_line"))
	}
}
