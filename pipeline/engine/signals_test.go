package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// readSignals returns the blocks of a partition of the signals topic.
func readSignals(t *testing.T, h *harness, partition int) (blocks []*pipeline.SignalBlock) {
	t.Helper()
	for _, message := range h.read(pipeline.TopicSignals, partition) {
		block := &pipeline.SignalBlock{}
		if err := block.UnmarshalVT(message.Value); err != nil {
			t.Fatal(err)
		}
		if len(message.Value) > maxSignalBytes+maxSignalBytes/2 {
			t.Errorf("a message of %d bytes", len(message.Value))
		}
		blocks = append(blocks, block)
	}
	return blocks
}

// addFound adds signals to a message, as evaluateSignals does.
func addFound(w *worker, message *message, signals []correlate.Signal) {
	aggregator := correlate.NewAggregator(nil)
	w.addSignals(aggregator, message, 0, signals)
	message.signals = append(message.signals, aggregator.Take())
}

// TestSignalsOfABlockAreWritten: each signal of a stored message is in one part of the partition of its rule and group, with
// the position and what identifies its event; all partitions are told the watermark in the last part. Messages that the store
// rejects have none.
func TestSignalsOfABlockAreWritten(t *testing.T) {
	h := newHarness(t, 3, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	w.deps.Kafka, w.source.Partition = h.client, 2
	line := func(n int) *pipeline.Event {
		e := event(n)
		e.Host = &pipeline.Host{Name: "host1", Id: "h1", Cluster: "test"}
		e.Container = &pipeline.Container{Id: "c1", Name: "web", Image: "nginx", Labels: []*pipeline.Label{{Key: "secret", Value: "x"}}}
		return e
	}
	at := ago(time.Hour)
	block := &block{time: at, newestTime: at - int64(time.Second), correlation: &correlation{}}
	text := strings.Repeat("x", 1000)
	for m := range 3 {
		added := message{record: consumer.Record{Offset: int64(70 + m)}, batch: &pipeline.Batch{Events: []*pipeline.Event{line(m), line(m + 10)}}}
		var signals []correlate.Signal
		for i := range 300 {
			signals = append(signals, correlate.Signal{
				Rule: "r", Version: "v", Step: 1, Group: fmt.Sprint("g", i%5), Start: at - 9, End: at - 5, Value: int64(i), Index: uint32(i % 2),
				Origin: correlate.Origin{Text: text},
			})
		}
		addFound(w, &added, signals)
		block.messages = append(block.messages, added)
	}
	block.messages[1].rejection = errors.New("rejected")
	if err := w.writeSignals(t.Context(), block); err != nil {
		t.Fatal(err)
	}

	byGroup, signals := map[string]int{}, 0
	for partition := range 3 {
		blocks := readSignals(t, h, partition)
		for i, got := range blocks {
			wantWatermark := int64(0)
			if i == len(blocks)-1 {
				wantWatermark = at - int64(time.Second) - int64(lateness)
			}
			if got.Schema != 1 || got.Partition != 2 || got.Time != at || got.Part != uint32(i) || got.Watermark != wantWatermark {
				t.Errorf("partition %d, part %d of %d: %d %d %d %d %d", partition, i, len(blocks), got.Schema, got.Partition, got.Time, got.Part, got.Watermark)
			}
			for _, s := range got.Signals {
				signals++
				if before, ok := byGroup[s.Group]; ok && before != partition {
					t.Errorf("group %s is in the partitions %d and %d", s.Group, before, partition)
				}
				byGroup[s.Group] = partition
				e := s.Event
				if s.Rule != "r" || s.Version != "v" || s.Step != 1 || s.Start != at-9 || s.End != at-5 || s.Text != text || s.Offset != 70 && s.Offset != 72 ||
					int64(s.Index) != s.Value%2 || e.Container.GetName() != "web" || len(e.Container.Labels) > 0 || e.Host.GetName() != "host1" || e.Source.GetPort() != 4711 ||
					e.Log != nil || string(e.Id) != string(line(int(s.Offset-70)+10*int(s.Index)).Id) {
					t.Fatalf("signal %v", s)
				}
			}
		}
		if len(blocks) == 0 {
			t.Errorf("partition %d is told nothing", partition)
		}
	}
	if signals != 600 || len(byGroup) != 5 || w.metrics.signals.Load() != 600 {
		t.Errorf("%d signals of %d groups, %d counted", signals, len(byGroup), w.metrics.signals.Load())
	}
}

// TestIdleWorkerWritesHowFarItIs: once a second, if it has everything, and rules need it.
func TestIdleWorkerWritesHowFarItIs(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	now, bundle := time.Unix(0, ago(0)), testBundle
	w.deps.Kafka = h.client
	w.deps.Now = func() time.Time { return now }
	w.deps.Bundle = func() *pipeline.Bundle { return bundle }
	told := 0
	tell := func(what string, want int) {
		t.Helper()
		if err := w.writeIdleWatermark(t.Context()); err != nil {
			t.Fatal(err)
		}
		for partition := range 2 {
			blocks := readSignals(t, h, partition)
			if len(blocks) != told+want {
				t.Fatalf("%s: %d messages more, want %d", what, len(blocks)-told, want)
			}
			if want > 0 {
				last := blocks[len(blocks)-1]
				if last.Time != 0 || len(last.Signals) > 0 || last.Watermark != w.signals.caughtUp-int64(lateness) {
					t.Errorf("%s: %v", what, last)
				}
			}
		}
		told += want
	}
	w.fetcher = &consumer.Fetcher{}
	w.receiveChunk(consumer.Chunk{Next: 5, End: 5, At: now})
	tell("no rules", 0)
	bundle = correlationBundle
	tell("everything is read", 1)
	now = now.Add(watermarkInterval - 1)
	tell("too early", 0)
	now = now.Add(1)
	w.receiveChunk(consumer.Chunk{Next: 6, End: 9, At: now})
	tell("as far as before", 1)
	if w.signals.caughtUp != ago(0) {
		t.Errorf("caught up at %d", w.signals.caughtUp)
	}
	now = now.Add(watermarkInterval)
	w.receiveChunk(consumer.Chunk{Next: 9, End: 9, At: now.Add(-time.Second)})
	tell("everything is read again", 1)
}

// TestSignalsTopicWithFewerPartitionsThanBefore: the worker starts again, and distributes the signals of its block to the
// partitions that there are. Nothing was written by the old number, which would make the repeat look read.
func TestSignalsTopicWithFewerPartitionsThanBefore(t *testing.T) {
	h := newHarness(t, 3, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	w.deps.Kafka = h.client
	w.signalPartitions.set(5)
	w.signalPartitions.askedAt = time.Now()
	added := message{batch: &pipeline.Batch{Events: []*pipeline.Event{event(0)}}}
	var signals []correlate.Signal
	for i := range 20 {
		signals = append(signals, correlate.Signal{Rule: "r", Version: "v", Group: fmt.Sprint("g", i)})
	}
	addFound(w, &added, signals)
	at := ago(0)
	written := &block{time: at, newestTime: at, correlation: &correlation{}, messages: []message{added}}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	count := func() (signals int) {
		for partition := range 3 {
			for _, block := range readSignals(t, h, partition) {
				signals += len(block.Signals)
			}
		}
		return signals
	}
	if err := w.writeSignals(ctx, written); !errors.Is(err, errRestart) || count() != 0 {
		t.Errorf("%v, %d signals are written", err, count())
	}
	if err := w.writeSignals(ctx, written); err != nil || count() != 20 {
		t.Errorf("%v, %d signals are written", err, count())
	}
}

// TestLongNamesLeaveRoomForSignals: what is written of an event has a few KiB, whatever names its batch has.
func TestLongNamesLeaveRoomForSignals(t *testing.T) {
	long := strings.Repeat("ä", 1<<20)
	got := alertedEvent(&pipeline.Event{
		Host:      &pipeline.Host{Name: long, Cluster: long},
		Container: &pipeline.Container{Id: long, Name: long, Image: long},
	})
	if size := got.SizeVT(); size < 5*maxAlertedName/2 || size > 6*maxAlertedName || !utf8.ValidString(got.Host.Name) {
		t.Errorf("%d bytes", size)
	}
}
