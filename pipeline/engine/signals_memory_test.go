package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// manySignals is a signalDetector each of whose rules has a signal of every event, and one verdict for it.
type manySignals struct {
	rules    []*correlate.Rule
	panicsAt int64 // the timestamp of the event at which Signals panics; 0: at none
}

func newManySignals(kind correlate.Kind, rules int) *manySignals {
	m := &manySignals{}
	for i := range rules {
		m.rules = append(m.rules, &correlate.Rule{
			ID: fmt.Sprint("r", i), Version: "1", Kind: kind, Within: time.Minute, Min: 10, Max: correlate.NoMax, Steps: []correlate.Step{{Name: "a"}, {Name: "b"}},
		})
	}
	return m
}

func (m *manySignals) Correlations() []*correlate.Rule { return m.rules }

func (m *manySignals) Evaluate(events []*pipeline.Event) {
	for _, e := range events {
		e.Verdicts = append(e.Verdicts, &pipeline.Verdict{Rule: "single"})
	}
}

func (m *manySignals) Signals(events []*pipeline.Event) (out []correlate.Signal) {
	m.Evaluate(events)
	for i, e := range events {
		if e.Timestamp == m.panicsAt {
			panic("on purpose")
		}
		for _, rule := range m.rules {
			out = append(out, correlate.Signal{
				Rule: rule.ID, Version: "1", Group: fmt.Sprint("g", e.Timestamp%7), Start: e.Timestamp, End: e.Timestamp, Index: uint32(i),
				Origin: correlate.Origin{Text: strings.Repeat("x", 100)},
			})
		}
	}
	return out
}

func (m *manySignals) MatchVerdict(*correlate.Match) *pipeline.Verdict { return nil }

// blockOfEvents returns a block with messages of a number of events each.
func blockOfEvents(detector pipeline.Detector, at int64, messages, events int) *block {
	b := &block{time: at, newestTime: at, bundle: &pipeline.Bundle{Version: "v", Detectors: []pipeline.Detector{detector}}}
	for m := range messages {
		added := message{record: consumer.Record{Offset: int64(m)}, batch: &pipeline.Batch{}}
		for i := range events {
			e := event(m*events + i)
			e.Timestamp = at + int64(m*events+i)
			added.batch.Events = append(added.batch.Events, e)
		}
		b.messages = append(b.messages, added)
	}
	return b
}

// TestSignalsTakeNoMoreThanTheMemory: the signals of a block in which every event is one of 100 rules stay within engine.memory,
// and all of them are written, in the same messages as where there is room for all.
func TestSignalsTakeNoMoreThanTheMemory(t *testing.T) {
	detector, at := newManySignals(correlate.Sequence, 100), ago(time.Hour)
	var first [][]byte
	for _, limit := range []int64{1 << 40, 16 << 20, 0} {
		h := newHarness(t, 2, kafka.AssignStatic)
		w, _ := newTestWorker(newFakeStore())
		w.deps.Kafka = h.client
		w.Engine.memory.limit = limit
		w.memory.charge(1) // the block itself
		block := blockOfEvents(detector, at, 4, 300)
		block.memory = 1
		w.evaluate(block)
		if limit > 1 && (w.Engine.memory.used > limit || w.Engine.memory.used < min(limit, 4*300*100*300)/2) {
			t.Errorf("limit %d: %d bytes are used", limit, w.Engine.memory.used)
		}
		if used := w.Engine.memory.used; used != block.memory {
			t.Errorf("limit %d: %d bytes are used, %d are those of the block", limit, used, block.memory)
		}
		block.messages[2].rejection = errors.New("rejected")
		if err := w.writeSignals(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		for _, message := range block.messages {
			for _, e := range message.batch.Events {
				if len(e.Verdicts) != 1 {
					t.Fatalf("limit %d: an event has %d verdicts", limit, len(e.Verdicts))
				}
			}
		}
		w.releaseBlock(block)
		if w.Engine.memory.used != 0 || w.metrics.signals.Load() != 3*300*100 {
			t.Errorf("limit %d: %d bytes are left, %d signals", limit, w.Engine.memory.used, w.metrics.signals.Load())
		}

		var values [][]byte
		for partition := range 2 {
			for _, message := range h.read(pipeline.TopicSignals, partition) {
				values = append(values, message.Value)
			}
		}
		if first == nil {
			first = values
		}
		if !slices.EqualFunc(values, first, bytes.Equal) || len(values) < 20 {
			t.Errorf("limit %d: other messages: %d, %d before", limit, len(values), len(first))
		}
	}
}

// TestFloodOfOneGroupIsFewSignals: whatever the number of events, and with whatever memory.
func TestFloodOfOneGroupIsFewSignals(t *testing.T) {
	for _, limit := range []int64{1 << 30, 0} {
		h := newHarness(t, 1, kafka.AssignStatic)
		w, _ := newTestWorker(newFakeStore())
		w.deps.Kafka = h.client
		w.Engine.memory.limit = limit
		w.memory.charge(1)
		block := blockOfEvents(newManySignals(correlate.Count, 3), ago(time.Hour), 4, 700)
		w.evaluate(block)
		if err := w.writeSignals(t.Context(), block); err != nil {
			t.Fatal(err)
		}
		signals, events := 0, uint64(0)
		for _, block := range readSignals(t, h, 0) {
			signals += len(block.Signals)
			for _, s := range block.Signals {
				events += max(1, s.Count)
			}
		}
		if signals != 3*7*21 || events != 3*2800 || w.metrics.signals.Load() != events {
			t.Errorf("limit %d: %d signals of %d events, %d counted", limit, signals, events, w.metrics.signals.Load())
		}
	}
}

// TestPanicCostsTheSignalsOfOneEvent: those of the other events of the message are written, and each verdict is there once.
func TestPanicCostsTheSignalsOfOneEvent(t *testing.T) {
	h := newHarness(t, 1, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	w.deps.Kafka = h.client
	at := ago(time.Hour)
	detector := newManySignals(correlate.Sequence, 2)
	detector.panicsAt = at + 130
	block := blockOfEvents(detector, at, 1, 300)
	w.evaluate(block)
	if err := w.writeSignals(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	found := map[uint32]int{}
	for _, block := range readSignals(t, h, 0) {
		for _, s := range block.Signals {
			found[s.Index]++
			if s.Start != at+int64(s.Index) {
				t.Fatalf("the signal of event %d is that of %d", s.Index, s.Start-at)
			}
		}
	}
	for i, e := range block.messages[0].batch.Events {
		want := 1
		if i == 130 {
			want = 0
		}
		if found[uint32(i)] != 2*want || len(e.Verdicts) != want {
			t.Errorf("event %d: %d signals, %d verdicts", i, found[uint32(i)], len(e.Verdicts))
		}
	}
	if w.metrics.detectorPanics.Load() != 1 {
		t.Errorf("%d panics", w.metrics.detectorPanics.Load())
	}
}

// BenchmarkFloodOfOneGroup measures what a million events of one group are on the signals topic, and how long a fold takes for
// them: in blocks of 20,000, over 50 s, each a signal of one rule; "each" without joining.
func BenchmarkFloodOfOneGroup(b *testing.B) {
	const events, blockEvents = 1_000_000, 20_000
	rule := &correlate.Rule{ID: "flood", Version: "1", Kind: correlate.Count, Within: time.Minute, Min: 100, Max: correlate.NoMax, Steps: []correlate.Step{{}}}
	for name, rules := range map[string][]*correlate.Rule{"joined": {rule}, "each": nil} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				fold, size, count := correlate.New([]*correlate.Rule{rule}, correlate.DefaultLimits), 0, int64(0)
				took, joining := time.Duration(0), time.Duration(0)
				for from := 0; from < events; from += blockEvents {
					began := time.Now()
					aggregator := correlate.NewAggregator(rules)
					for i := from; i < from+blockEvents; i++ {
						e := event(i % blockEvents)
						e.Timestamp = testStart + int64(i)*50_000
						aggregator.Add(&correlate.Signal{
							Rule: "flood", Version: "1", Group: "10.0.0.1", Start: e.Timestamp, End: e.Timestamp, Offset: int64(i),
							Origin: correlate.Origin{Text: "GET /login HTTP/1.1 of 10.0.0.1 was answered 401", AlertEvent: e},
						})
					}
					signals := aggregator.Take()
					joining += time.Since(began)
					decoded := make([]correlate.Signal, len(signals))
					for i := range signals {
						encoded := encodeSignal(&signals[i])
						size += encoded.SizeVT() + 3
						decoded[i] = decodeSignal(encoded, 0, signals[i].End)
					}
					began = time.Now()
					for _, signal := range decoded {
						fold.Add(signal)
					}
					for _, match := range fold.Advance(testStart + int64(from+blockEvents)*50_000) {
						count += match.Count
					}
					took += time.Since(began)
				}
				if count != events {
					b.Fatalf("%d events", count)
				}
				b.ReportMetric(float64(size)/1e6, "MB")
				b.ReportMetric(took.Seconds()*1000, "fold-ms")
				b.ReportMetric(joining.Seconds()*1000, "make-ms")
			}
		})
	}
}
