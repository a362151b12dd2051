package engine

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/correlate"
	"tidegate/pipeline/kafka"
)

// ago returns a time before 2026-11-01, ns since 1970.
func ago(d time.Duration) int64 {
	return time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(-d).UnixNano()
}

// blockOf returns a block of a source with one signal, or with none.
func blockOf(source int32, at int64, part uint32, watermark int64, signals int) *pipeline.SignalBlock {
	block := &pipeline.SignalBlock{Schema: signalSchema, Partition: source, Time: at, Part: part, Watermark: watermark}
	for range signals {
		block.Signals = append(block.Signals, &pipeline.Signal{Rule: "r"})
	}
	return block
}

// TestSignalsOfABlockAreReadOnce: a block that is written again is a repeat, in whole and in each part, and so is a block
// before it; not one behind a clock that was ahead.
func TestSignalsOfABlockAreReadOnce(t *testing.T) {
	state := &foldState{sources: map[int32]foldSource{}}
	at := ago(time.Hour)
	for i, step := range []struct {
		block *pipeline.SignalBlock
		isNew bool
	}{
		{blockOf(1, at, 0, 0, 1), true},
		{blockOf(1, at, 1, 0, 1), true},
		{blockOf(1, at, 0, 0, 1), false},
		{blockOf(1, at, 1, 0, 1), false},
		{blockOf(1, at, 2, 0, 1), true},
		{blockOf(2, at, 0, 0, 1), true}, // of another source
		{blockOf(1, at+5, 0, at, 0), false},
		{blockOf(1, at+5, 0, 0, 1), true}, // the one before had no signals
		{blockOf(1, at, 3, 0, 1), false},
		{blockOf(1, at+5-int64(maxClockStep)+1, 0, 0, 1), false},
		{blockOf(1, at+5-int64(maxClockStep), 0, 0, 1), true},
		{blockOf(1, at+5, 0, 0, 1), true},
	} {
		if got := state.read(int64(i), at, step.block); got != step.isNew {
			t.Errorf("step %d: new: %v, want %v", i, got, step.isNew)
		}
		if state.offset != int64(i)+1 {
			t.Errorf("step %d: the state is before the record %d", i, state.offset)
		}
	}
}

// TestWatermarkIsThatOfTheSlowestSource: the signals of all partitions of the events topic are waited for, but for one that
// has told nothing for a minute, and for one that has never told how far it is. It does not go back.
func TestWatermarkIsThatOfTheSlowestSource(t *testing.T) {
	state := &foldState{sources: map[int32]foldSource{}}
	second := int64(time.Second)
	start := ago(time.Hour)
	for i, step := range []struct {
		block *pipeline.SignalBlock
		at    int64 // of the record
		want  int64
	}{
		{blockOf(3, start, 0, 0, 1), start, 0},
		{blockOf(1, 0, 0, start-9*second, 0), start, start - 9*second},
		{blockOf(2, 0, 0, start-5*second, 0), start, start - 9*second},
		{blockOf(1, 0, 0, start-3*second, 0), start + second, start - 5*second},
		{blockOf(1, 0, 0, start-4*second, 0), start + second, start - 5*second},
		{blockOf(4, 0, 0, start-60*second, 0), start + second, start - 5*second},     // a new one, far behind
		{blockOf(4, 0, 0, start+50*second, 0), start + 2*second, start - 5*second},   // a clock that is ahead
		{blockOf(1, 0, 0, start+58*second, 0), start + 59*second, start - 5*second},  // 2 is heard 59 s ago
		{blockOf(1, 0, 0, start+59*second, 0), start + 60*second, start - second},    // and does not count any more
		{blockOf(2, 0, 0, start-4*second, 0), start + 61*second, start - second},     // it is back
		{blockOf(1, 0, 0, start+80*second, 0), start + 62*second, start - second},    // 4 is stalled, 2 is slow
		{blockOf(2, 0, 0, start+70*second, 0), start + 62*second, start + 59*second}, // not behind the records
	} {
		for state.newest > 0 && step.at-state.newest > int64(outage) {
			state.read(int64(i), state.newest+int64(outage), blockOf(1, 0, 0, 0, 0)) // its engine runs
		}
		state.read(int64(i), step.at, step.block)
		if state.watermark != step.want {
			t.Errorf("step %d: %d s, want %d s", i, (state.watermark-start)/second, (step.want-start)/second)
		}
	}
}

// TestPartitionsAreWaitedForAfterAnOutage: no engine has run for an hour. The partition whose engine is the first to tell something does not
// make the others late, which have as much to catch up; one that stays silent then is waited for as long as ever.
func TestPartitionsAreWaitedForAfterAnOutage(t *testing.T) {
	state := &foldState{sources: map[int32]foldSource{}}
	second := int64(time.Second)
	start := ago(2 * time.Hour)
	back := start + int64(time.Hour)
	for i, step := range []struct {
		source        int32
		watermark, at int64
		want          int64
	}{
		{1, start - 3*second, start, start - 3*second},
		{2, start - 2*second, start, start - 3*second},
		{1, start + 600*second, back, start - 3*second},
		{1, back - 3*second, back + 9*second, start - 3*second},
		{2, start + 500*second, back + 9*second, start + 500*second},
		{1, back, back + 18*second, start + 500*second},
		{1, back, back + 27*second, start + 500*second},
		{1, back, back + 36*second, start + 500*second},
		{1, back, back + 45*second, start + 500*second},
		{1, back, back + 54*second, start + 500*second},
		{1, back, back + 63*second, start + 500*second},
		{1, back, back + 69*second, back},
	} {
		state.read(int64(i), step.at, blockOf(step.source, 0, 0, step.watermark, 0))
		if state.watermark != step.want {
			t.Errorf("step %d: %d s, want %d s", i, (state.watermark-start)/second, (step.want-start)/second)
		}
	}
}

// TestStateOfTheFoldIsReadAgain: its text is the state; of too many sources it has those with the newest blocks.
func TestStateOfTheFoldIsReadAgain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, sources := range []int{0, 1, 12, 190, 2000} {
		state := &foldState{
			offset: 1 << 40, watermark: ago(3 * time.Second), latestEnd: ago(-time.Hour), newest: ago(0), sources: map[int32]foldSource{},
		}
		for i := range sources {
			state.sources[int32(i)] = foldSource{
				blockTime: ago(time.Duration(random.Int64N(int64(time.Minute)))), part: uint32(random.IntN(3)),
				watermark: toMillisecond(ago(time.Duration(random.Int64N(int64(time.Minute))))),
				heard:     toMillisecond(ago(time.Duration(random.Int64N(int64(time.Second))))),
			}
		}
		text, left := state.encode()
		if len(text) > maxStateText || strings.Contains(text, " ") {
			t.Errorf("%d sources: a text of %d bytes", sources, len(text))
		}
		if (left > 0) != (sources == 2000) || left > 1810 {
			t.Errorf("%d sources: %d are left out", sources, left)
		}
		for range left {
			oldest := slices.MinFunc(slices.Collect(maps.Keys(state.sources)), func(a, b int32) int {
				return cmp.Compare(state.sources[a].blockTime, state.sources[b].blockTime)
			})
			delete(state.sources, oldest)
		}
		if got, err := parseFoldState(text); err != nil || !reflect.DeepEqual(got, state) {
			t.Errorf("%d sources: %+v, %v", sources, got, err)
		}
	}
	// One of an earlier version, with times in nanoseconds.
	want := &foldState{offset: 5, watermark: 7, latestEnd: 8, newest: 3e6 + 5, sources: map[int32]foldSource{
		1: {blockTime: 2e6 + 4, part: 3, watermark: 1e6, heard: 2e6},
	}}
	old := []byte{stateInNanoseconds}
	for _, value := range []int64{5, 7, 8, 3e6 + 5, 1, 1, 1e6 + 1, 3, 2e6 - 3, 1e6 - 2} {
		old = binary.AppendVarint(old, value)
	}
	if got, err := parseFoldState(base64.RawStdEncoding.EncodeToString(old)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "AQ", "AAAA", "!", "AQEBAQEBAQ", fmt.Sprint((&foldState{}).String(), "A")} {
		if state, err := parseFoldState(text); err == nil {
			t.Errorf("%q: %+v", text, state)
		}
	}
}

// TestSignalsOfForeignPartitionsAreNoSources: whatever partitions the messages of the signals topic name, the state has only those of
// the events topic, also when it grows, and only they hold the watermark. Other messages are dead letters, with one request to the broker
// for each of its answers.
func TestSignalsOfForeignPartitionsAreNoSources(t *testing.T) {
	h := newHarness(t, 2, kafka.AssignStatic)
	w, _ := newTestWorker(newFakeStore())
	w.deps.Kafka = h.client
	state := &foldState{sources: map[int32]foldSource{}}
	f := &foldWorker{worker: w, fold: correlate.New(nil, correlate.DefaultLimits), state: state, checkpoints: []*foldState{state.clone()}}
	offset := int64(0)
	read := func(letters int, sources ...int32) {
		t.Helper()
		f.letters, f.askedPartitions = nil, false
		for _, source := range sources {
			watermark := ago(time.Hour)
			if source < 2 {
				watermark = ago(0) - int64(lateness)
			}
			value, err := blockOf(source, ago(0), 0, watermark, 1).MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			if err := f.foldRecord(t.Context(), consumer.Record{Offset: offset, Time: ago(0), Value: value}); err != nil {
				t.Fatal(err)
			}
			offset++
		}
		if len(f.letters) != letters || state.offset < 1 {
			t.Errorf("sources %v: %d dead letters, want %d", sources, len(f.letters), letters)
		}
	}
	read(0, 1)
	read(7, 2, -1, math.MinInt32, math.MaxInt32, maxSources, maxSources-1, 3)
	read(0, 0, 1)
	if len(state.sources) != 2 || state.watermark != ago(0)-int64(lateness) {
		t.Errorf("%d sources, the watermark is %v", len(state.sources), time.Unix(0, state.watermark).UTC())
	}
	h.grow(pipeline.TopicEvents, 4)
	read(1, 2, 3, 4)
	if len(state.sources) != 4 {
		t.Errorf("%d sources of the topic that has grown", len(state.sources))
	}
}

// grow adds partitions to a topic.
func (h *harness) grow(name string, partitions int) {
	h.Helper()
	request := kmsg.NewPtrCreatePartitionsRequest()
	topic := kmsg.NewCreatePartitionsRequestTopic()
	topic.Topic, topic.Count = h.client.Topic(name), int32(partitions)
	request.Topics, request.TimeoutMillis = append(request.Topics, topic), 10_000
	response := h.request(request).(*kmsg.CreatePartitionsResponse)
	for _, topic := range response.Topics {
		if topic.ErrorCode != 0 {
			h.Fatalf("grow %s: error %d", topic.Topic, topic.ErrorCode)
		}
	}
}

// TestPartitionThatWritesNoWatermarkIsNotWaitedFor: an engine without rules over several events writes matches alone.
func TestPartitionThatWritesNoWatermarkIsNotWaitedFor(t *testing.T) {
	state := &foldState{sources: map[int32]foldSource{}}
	second := int64(time.Second)
	start := ago(time.Hour)
	state.read(0, start, blockOf(1, 0, 0, start-5*second, 0))
	for i := range int64(70) {
		at := start + i*second
		state.read(2*i+1, at, blockOf(1, at, 0, 0, 1))
		state.read(2*i+2, at, blockOf(2, 0, 0, at-3*second, 0))
		want := start - 5*second
		if i >= 60 {
			want = at - 3*second
		}
		if state.watermark != want {
			t.Fatalf("after %d s the watermark is %d s behind", i, (at-state.watermark)/second)
		}
	}
}
