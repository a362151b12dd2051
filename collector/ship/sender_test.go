package ship

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/retry"
)

// newTestSender returns a sender of packets to partition 0 of one, whose requests end before they are sent, and a function that
// returns the sequences that were sent since its last call.
func newTestSender(t *testing.T) (s *sender, sent func() []uint64) {
	t.Helper()
	var mu sync.Mutex
	var sequences []uint64
	shipper := &Shipper{cfg: Default(), health: newBrokerHealth(), maintainNow: make(chan struct{}, 1)}
	shipper.ctx, shipper.cancel = context.WithCancel(context.Background())
	t.Cleanup(shipper.cancel)
	shipper.partitions.Store(&[]*partition{{}})
	shipper.failpoints.beforeProduce = func(id batchID) {
		mu.Lock()
		sequences = append(sequences, id.Sequence)
		mu.Unlock()
		runtime.Goexit()
	}
	s = &sender{
		shipper: shipper, packets: true, budget: newByteBudget(1000), nextSequenceNumber: 1,
		backoff: retry.Backoff{Min: firstRetry, Max: lastRetry},
	}
	return s, func() []uint64 {
		shipper.producing.Wait()
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(sequences)
		list := sequences
		sequences = nil
		return list
	}
}

// waiting returns batches of the sequences from first on, in the given states.
func waiting(first uint64, states ...batchState) (list []*pendingBatch) {
	for i, state := range states {
		list = append(list, &pendingBatch{
			sequence: first + uint64(i), state: state, batch: &batch{eventCount: 3}, counts: datasetCounts{1: 2}, queuedAt: time.Now(),
		})
	}
	return list
}

// TestRequestsAreBounded by max_in_flight, by the window of the engine, and to one after a failure.
func TestRequestsAreBounded(t *testing.T) {
	many := func(n int) []batchState { return slices.Repeat([]batchState{stateReady}, n) }
	check := func(what, want string, pending []*pendingBatch, change func(s *sender)) *sender {
		t.Helper()
		s, sent := newTestSender(t)
		s.pending = pending
		change(s)
		s.dispatchAgain()
		list := sent()
		if got := fmt.Sprint(list); got != want {
			t.Errorf("%s: %s are sent, want %s", what, got, want)
		}
		for _, p := range s.pending {
			if slices.Contains(list, p.sequence) && p.state != stateProducing {
				t.Errorf("%s: batch %d is in state %d", what, p.sequence, p.state)
			}
		}
		return s
	}
	nothing := func(*sender) {}
	fail := func(s *sender) { s.backoff.Next() }
	if s := check("in flight", "[5 6 7 8]", waiting(5, many(9)...), nothing); s.producing != 4 {
		t.Errorf("%d requests are counted", s.producing)
	}
	check("one is in flight", "[5 6 7]", waiting(5, many(9)...), func(s *sender) { s.producing = 1 })
	check("those that are ready", "[6 9]", waiting(5, stateProducing, stateReady, stateRecovering, stateSpilling, stateReady, stateDone), nothing)
	wide := func(s *sender) { s.shipper.cfg.MaxInFlight = 100 }
	if s := check("the window", fmt.Sprint([]uint64{68}), append(waiting(5, stateRecovering), waiting(68, many(3)...)...), wide); s.producing != 1 {
		t.Errorf("%d requests are counted", s.producing)
	}
	check("after a failure", "[5]", waiting(5, many(3)...), fail)
	s := check("in the pause", "[]", waiting(5, many(3)...), func(s *sender) { fail(s); s.retryAt = time.Now().Add(time.Hour) })
	if s.timer == nil || !s.timer.Stop() {
		t.Error("nothing ends the pause")
	}
	s.dispatchAgain()
	if !s.timer.Stop() {
		t.Error("nothing ends the pause again")
	}
	check("none", "[]", nil, nothing)
	check("ended", "[]", waiting(5, stateReady), func(s *sender) { s.shipper.cancel() })
	check("missing", "[]", waiting(5, stateReady), func(s *sender) { s.partition = 1; s.shipper.health.topicKnown.Store(true) })
	check("not known to be missing", "[5]", waiting(5, stateReady), func(s *sender) { s.partition = 1 })
}

// TestWindowIsOpenBelowItsEnd: 64 sequences from the first batch that is not finished.
func TestWindowIsOpenBelowItsEnd(t *testing.T) {
	s, _ := newTestSender(t)
	s.nextSequenceNumber = 100
	if !s.windowOpen() {
		t.Error("closed without a batch")
	}
	for first, want := range map[uint64]bool{36: false, 37: true, 99: true} {
		s.pending = waiting(first, stateProducing)
		if s.windowOpen() != want {
			t.Errorf("from %d to 100: open is %t", first, !want)
		}
	}
}

// TestFailedRequestIsRepeated after a pause, which requests that fail together lengthen once.
func TestFailedRequestIsRepeated(t *testing.T) {
	s, sent := newTestSender(t)
	s.pending = waiting(5, stateProducing, stateProducing, stateProducing)
	s.pending[1].batch = nil // it is in the spool
	s.producing = 3
	before := time.Now()
	s.retryLater(s.pending[0])
	since, at := s.failingSince, s.retryAt
	if s.producing != 2 || s.pending[0].state != stateReady || !s.pending[0].batch.bufferShared || since.Before(before) || at.Sub(since) <= 0 ||
		!s.isFailing() || s.backoff.Attempts() != 1 {
		t.Errorf("%d requests, state %d, paused for %v", s.producing, s.pending[0].state, at.Sub(since))
	}
	s.retryAt = before.Add(time.Hour)
	s.retryLater(s.pending[1])
	if s.producing != 1 || s.failingSince != since || s.backoff.Attempts() != 1 {
		t.Errorf("together: %d requests, %d failures", s.producing, s.backoff.Attempts())
	}
	s.retryAt = before
	s.retryLater(s.pending[2])
	if s.producing != 0 || s.failingSince != since || s.backoff.Attempts() != 2 || !s.retryAt.After(time.Now()) {
		t.Errorf("again: %d requests, %d failures", s.producing, s.backoff.Attempts())
	}
	if list := sent(); len(list) != 0 {
		t.Errorf("%d are sent in the pause", list)
	}
	s.timer.Stop()
}

// TestBatchesOfPacketsAreSpilled when they are old, or memory is short; those of files when their lines cannot be read again.
func TestBatchesOfPacketsAreSpilled(t *testing.T) {
	check := func(what string, want uint64, always bool, change func(s *sender)) {
		t.Helper()
		s, _ := newTestSender(t)
		s.pending = waiting(5, stateProducing, stateReady, stateReady, stateReady)
		s.pending[1].batch = nil // it is in the spool
		change(s)
		got := s.nextSpill(always)
		if (got == nil) != (want == 0) || got != nil && (got.sequence != want || got.state != stateSpilling) {
			t.Errorf("%s: %+v, want %d", what, got, want)
		}
	}
	old := func(s *sender) {
		for _, p := range s.pending {
			p.queuedAt = time.Now().Add(-s.shipper.cfg.SpoolAfter)
		}
	}
	used := func(bytes int, failing bool) func(s *sender) {
		return func(s *sender) {
			s.budget.charge(bytes)
			if failing {
				s.backoff.Next()
			}
		}
	}
	files := func(unreadable int) func(s *sender) {
		return func(s *sender) {
			s.packets = false
			s.budget.charge(1000)
			s.pending[unreadable].batch.unreadable.Store(true)
		}
	}
	check("young", 0, false, func(*sender) {})
	check("always", 7, true, func(*sender) {})
	check("old", 7, false, old)
	check("half of the memory", 0, false, used(500, false))
	check("more than half of the memory", 7, false, used(501, false))
	check("a quarter, Kafka is away", 0, false, used(250, true))
	check("more than a quarter, Kafka is away", 7, false, used(251, true))
	check("lines that can be read again", 0, true, func(s *sender) { s.packets = false })
	check("lines that cannot be read again, young", 0, false, files(3))
	check("lines that cannot be read again", 8, false, func(s *sender) { files(3)(s); old(s) })
	check("lines that cannot be read again, always", 8, true, files(3))
}

// TestSenderIsDrainedAndUnreachable: what waits for lines of an earlier process is waited for by nobody.
func TestSenderIsDrainedAndUnreachable(t *testing.T) {
	s, _ := newTestSender(t)
	for state, want := range map[batchState]bool{stateRecovering: true, stateReady: false, stateProducing: false, stateSpilling: false, stateDone: true} {
		s.pending = waiting(5, state)
		if s.isDrained() != want {
			t.Errorf("drained in state %d: %t", state, !want)
		}
	}
	s.pending = waiting(5, stateDone, stateRecovering, stateReady, stateProducing, stateSpilling)
	if got := s.bufferedEvents(); got != 3+3*2 {
		t.Errorf("%d events wait", got)
	}

	unreachable := func(what string, want bool, change func(s *sender)) {
		t.Helper()
		s, _ := newTestSender(t)
		s.backoff.Next()
		s.failingSince = time.Now().Add(-time.Hour)
		s.shipper.health.unavailable.Store(true)
		change(s)
		if s.isUnreachable() != want {
			t.Errorf("%s: unreachable is %t", what, !want)
		}
	}
	unreachable("an outage", true, func(*sender) {})
	unreachable("a short one", false, func(s *sender) { s.failingSince = time.Now() })
	unreachable("a request is in flight", false, func(s *sender) { s.producing = 1 })
	unreachable("the last request succeeded", false, func(s *sender) { s.backoff.Reset() })
	unreachable("Kafka answers others", false, func(s *sender) { s.shipper.health.unavailable.Store(false) })
	unreachable("a partition that is missing", true, func(s *sender) {
		s.shipper.health.topicKnown.Store(true)
		s.partition, s.producing = 1, 1
	})
}

// TestSequencesAscend, whether batches go through the journal or not. Packets that fill a quarter of the memory are looked after.
func TestSequencesAscend(t *testing.T) {
	s, sent := newTestSender(t)
	s.shipper.host = &pipeline.Host{}
	isRequested := func() bool { return len(s.shipper.maintainNow) > 0 }
	first := s.addPacketBatch(&batch{counts: datasetCounts{1: 7}}, stateReady)
	sequence := s.nextSequence(&batch{})
	if s.addFileBatch(&batch{counts: datasetCounts{1: 9}}, sequence); fmt.Sprint(sent()) != "[1 2]" {
		t.Error("the batches are not sent")
	}
	if first.sequence != 1 || sequence != 2 || s.pending[1].sequence != 2 || s.nextSequenceNumber != 3 || first.counts[1] != 7 || s.pending[1].counts[1] != 9 {
		t.Errorf("sequences %d and %d, next %d", first.sequence, sequence, s.nextSequenceNumber)
	}
	s.budget.charge(251)
	if s.addPacketBatch(&batch{}, stateSpilling); isRequested() {
		t.Error("maintenance is requested by itself")
	}
	s.budget.refund(1)
	if s.addPacketBatch(&batch{}, stateReady); isRequested() {
		t.Error("maintenance is requested for a quarter of the memory")
	}
	s.budget.charge(1)
	if s.addPacketBatch(&batch{}, stateReady); !isRequested() {
		t.Error("no maintenance is requested")
	}

	// Batches of an earlier process are in the order of their sequences; those that are done leave from the front.
	s.pending = nil
	for _, sequence := range []uint64{7, 3, 5} {
		s.insertRecovered(&pendingBatch{sequence: sequence, state: stateRecovering, batch: &batch{}})
	}
	list := func() (list []uint64) {
		for _, p := range s.pending {
			list = append(list, p.sequence)
		}
		return list
	}
	for _, step := range []struct {
		remove int
		want   string
	}{{1, "[3 5 7]"}, {0, "[7]"}, {0, "[]"}} {
		removed := s.pending[step.remove]
		if s.removeBatch(removed); fmt.Sprint(list()) != step.want || removed.batch != nil || removed.state != stateDone {
			t.Errorf("%v are left, want %s", list(), step.want)
		}
	}
}

// TestReplayIsGivenUp when its owner could have called for longer than resume_timeout, or the file is gone.
func TestReplayIsGivenUp(t *testing.T) {
	check := func(what string, want bool, idle time.Duration, change func(f *fileProducer, stalled partitionSet)) {
		t.Helper()
		s, _ := newTestSender(t)
		f := newFileProducer(s.shipper, "a", 1)
		f.ranges = []*batchRange{{file: f, replay: &rangeReplay{sender: &sender{partition: 3}}}}
		timeout := s.shipper.cfg.ResumeTimeout
		f.idle.length = timeout - time.Second
		stalled := partitionSet{}
		change(f, stalled)
		step, wantIdle := idle, timeout-time.Second+idle
		if idle == 0 {
			step, wantIdle = time.Second, 0
		}
		if got := f.replayExpired(step, stalled); got != want || !want && f.idle.length != wantIdle || f.idle.activity != f.activity.Load() {
			t.Errorf("%s: %t, idle for %v, want %t, %v", what, got, f.idle.length, want, wantIdle)
		}
	}
	nothing := func(*fileProducer, partitionSet) {}
	check("at the limit", false, time.Second, nothing)
	check("behind the limit", true, time.Second+1, nothing)
	check("closed", true, 1, func(f *fileProducer, _ partitionSet) { f.setState(fileClosed) })
	check("missing", true, 1, func(f *fileProducer, _ partitionSet) { f.setState(fileMissing) })
	check("open", false, 1, func(f *fileProducer, _ partitionSet) { f.setState(fileOpen) })
	check("a call", false, 0, func(f *fileProducer, _ partitionSet) { f.activity.Add(1) })
	check("waits for memory", false, 0, func(f *fileProducer, _ partitionSet) { f.blocked.Store(true) })
	check("a stop", false, 0, func(f *fileProducer, _ partitionSet) { f.shipper.closing.Store(true) })
	check("its partition is stalled", false, 0, func(_ *fileProducer, stalled partitionSet) { stalled[3] = true })
	check("another partition is stalled", true, time.Second+1, func(_ *fileProducer, stalled partitionSet) { stalled[2] = true })
	check("passed", true, time.Second+1, func(f *fileProducer, stalled partitionSet) { stalled[3], f.ranges[0].replay.passed = true, true })
	check("done", true, time.Second+1, func(f *fileProducer, stalled partitionSet) { stalled[3], f.ranges[0].done = true, true })
}

// TestLinesAreFoundInRecoveredRanges by where they end. What was passed on the way is complete.
func TestLinesAreFoundInRecoveredRanges(t *testing.T) {
	s, _ := newTestSender(t)
	newFile := func() *fileProducer {
		f := newFileProducer(s.shipper, "a", 1)
		s.pending = waiting(1, stateRecovering)
		s.pending[0].missingRanges = 9
		f.ranges = []*batchRange{{file: f, after: -5, end: collector.Checkpoint{End: 0}, done: true}} // of this process
		for i, after := range []int64{10, 30, 50} {
			f.ranges = append(f.ranges, &batchRange{
				file: f, after: after, end: collector.Checkpoint{End: after + 10}, count: 4, done: i == 1,
				replay: &rangeReplay{sender: s, pending: s.pending[0], received: 1},
			})
		}
		f.unpassedRanges.Store(3)
		return f
	}
	check := func(end int64, wantRange int, want linePosition, unpassed int32, missing int, unconfirmed uint64) {
		t.Helper()
		f := newFile()
		ranges := slices.Clone(f.ranges)
		before := s.shipper.counters.unconfirmed[pipeline.Dataset_LOG].Load()
		target, position := f.findReplay(end)
		lost := s.shipper.counters.unconfirmed[pipeline.Dataset_LOG].Load() - before
		if slices.Index(ranges, target) != wantRange || position != want || f.unpassedRanges.Load() != unpassed ||
			s.pending[0].missingRanges != missing || lost != unconfirmed {
			t.Errorf("%d: range %d, position %d, %d ranges to pass, %d missing, %d unconfirmed",
				end, slices.Index(ranges, target), position, f.unpassedRanges.Load(), s.pending[0].missingRanges, lost)
		}
	}
	check(10, -1, lineNew, 3, 9, 0)
	check(11, 1, lineInside, 3, 9, 0)
	check(20, 1, lineLast, 3, 9, 0)
	check(21, -1, lineNew, 2, 8, 3)
	check(30, -1, lineNew, 2, 8, 3)
	check(35, 2, lineSafe, 2, 8, 3)
	check(40, 2, lineSafe, 1, 8, 3)
	check(60, 3, lineLast, 1, 8, 3)
	check(61, -1, lineNew, 0, 7, 6)
}

// TestAbandonedRangesKeepTheLinesThatWereReadAgain: the others are unconfirmed. A range without lines is gone. Safe ranges stay as long as
// the file may be read again.
func TestAbandonedRangesKeepTheLinesThatWereReadAgain(t *testing.T) {
	for _, state := range []fileState{fileOpen, fileMissing, fileClosed} {
		s, _ := newTestSender(t)
		f := newFileProducer(s.shipper, "a", 1)
		f.setState(state)
		f.checkpoint, f.hasCheckpoint = collector.Checkpoint{End: 10}, true
		add := func(after int64, replay *rangeReplay, received uint32, last int64, done bool) *batchRange {
			lines := &batchRange{file: f, after: after, end: collector.Checkpoint{End: after + 10, ReadFrom: after + 10}, count: 4, replay: replay, done: done}
			if replay != nil {
				replay.sender, replay.received, replay.last = s, received, collector.Checkpoint{End: last, ReadFrom: last - 1}
				f.unpassedRanges.Add(1)
			}
			f.ranges = append(f.ranges, lines)
			return lines
		}
		some := add(10, &rangeReplay{}, 2, 15, false)
		none := add(20, &rangeReplay{}, 0, 0, false)
		safe := add(30, &rangeReplay{}, 0, 0, true)
		own := add(60, nil, 0, 0, false)
		abandoned := f.abandonRanges()
		if len(abandoned) != 2 || abandoned[0] != some || abandoned[1] != none {
			t.Errorf("state %d: %d ranges are abandoned", state, len(abandoned))
		}
		var ranges []string
		for _, lines := range f.ranges {
			ranges = append(ranges, fmt.Sprintf("%d-%d×%d", lines.after, lines.end.End, lines.count))
		}
		if got := strings.Join(ranges, " "); got != "10-15×2 30-40×4 60-70×4" {
			t.Errorf("state %d: the ranges %s are left", state, got)
		}
		if some.end != (collector.Checkpoint{End: 15, ReadFrom: 14}) || none.end != (collector.Checkpoint{End: 20, ReadFrom: 20}) || none.count != 0 ||
			!some.replay.passed || !none.replay.passed || !some.replay.finished || safe.replay.passed != (state != fileOpen) || own.count != 4 {
			t.Errorf("state %d: %+v, %+v, %+v", state, some.end, none.end, safe.replay)
		}
		wantUnpassed := int32(1) // safe
		if state != fileOpen {
			wantUnpassed = 0
		}
		recovered, unconfirmed := s.shipper.counters.recovered.total(), s.shipper.counters.unconfirmed.total()
		if f.unpassedRanges.Load() != wantUnpassed || recovered != 2+4 || unconfirmed != 2+4 || f.checkpoint.End != 10 {
			t.Errorf("state %d: %d ranges to pass, %d recovered, %d unconfirmed, checkpoint %d", state, f.unpassedRanges.Load(), recovered, unconfirmed, f.checkpoint.End)
		}
		if again := f.abandonRanges(); len(again) != 0 || s.shipper.counters.unconfirmed.total() != unconfirmed {
			t.Errorf("state %d: %d ranges are abandoned again", state, len(again))
		}
	}
}

// TestLinesThatAreReadAgainFillTheirBatch, which is sent under its old sequence when its last line has come. A line that is too large is
// counted and takes its place in the range.
func TestLinesThatAreReadAgainFillTheirBatch(t *testing.T) {
	s, sent := newTestSender(t)
	s.shipper.host = &pipeline.Host{}
	s.packets = false
	f := newFileProducer(s.shipper, "a", 1)
	pending := &pendingBatch{sequence: 7, state: stateRecovering, missingRanges: 1, batch: newBatch()}
	lines := &batchRange{file: f, batch: pending.batch, after: 10, end: collector.Checkpoint{End: 40}, count: 3, replay: &rangeReplay{sender: s, pending: pending}}
	pending.batch.ranges = append(pending.batch.ranges, lines)
	f.ranges, s.pending = []*batchRange{lines}, []*pendingBatch{pending}
	f.unpassedRanges.Store(1)
	step := func(end int64, size, events int, received uint32, dropped uint64, unpassed int32, want string) {
		t.Helper()
		event := &pipeline.Event{Dataset: pipeline.Dataset_LOG, Log: &pipeline.LogLine{Message: strings.Repeat("x", size)}}
		checkpoint := collector.Checkpoint{End: end, ReadFrom: end - 1}
		isReplayed := f.replayEvent(event, checkpoint)
		counters := &s.shipper.counters
		if !isReplayed || f.lastEnd != end || f.rangeEnd != end || f.unpassedRanges.Load() != unpassed || lines.replay.received != received ||
			lines.replay.last != checkpoint || counters.read[pipeline.Dataset_LOG].Load() != uint64(received) ||
			counters.discarded[dropTooLarge][pipeline.Dataset_LOG].Load() != dropped || counters.unconfirmed.total() != 0 {
			t.Errorf("up to %d: replayed %t, %d lines, last %+v, %d ranges to pass", end, isReplayed, lines.replay.received, lines.replay.last, f.unpassedRanges.Load())
		}
		if got := fmt.Sprint(sent()); got != want || pending.batch.eventCount != events {
			t.Errorf("up to %d: %d events, %s are sent, want %d, %s", end, pending.batch.eventCount, got, events, want)
		}
	}
	step(20, 100, 1, 1, 0, 1, "[]")
	step(30, 2*int(s.shipper.cfg.BatchBytes), 1, 2, 1, 1, "[]")
	step(40, 100, 2, 3, 1, 0, "[7]")
	var decoded pipeline.Batch
	if err := decoded.UnmarshalVT(pending.batch.buf); err != nil || decoded.Sequence != 7 || len(decoded.Events) != 2 || pending.counts.total() != 2 || !lines.replay.finished {
		t.Errorf("%v, sequence %d, %d events", err, decoded.Sequence, len(decoded.Events))
	}
	if f.refillBatch(lines, &pipeline.Event{}, collector.Checkpoint{End: 40}) || lines.replay.received != 3 {
		t.Error("a batch that was sent takes a line")
	}
	lines.replay.received = 1
	if s.shipper.finishReplay(lines); pending.missingRanges != 0 || s.shipper.counters.unconfirmed.total() != 0 {
		t.Error("a replay ends twice")
	}

	// The owner comes to a line of a range while its replay is given up: the line is a new one.
	f.ranges = []*batchRange{{file: f, after: 40, end: collector.Checkpoint{End: 60}, count: 2, replay: &rangeReplay{sender: s, finished: true}}}
	f.unpassedRanges.Store(1)
	if f.replayEvent(&pipeline.Event{Dataset: pipeline.Dataset_LOG}, collector.Checkpoint{End: 50}) || f.lastEnd != 40 {
		t.Error("a line of a range that was given up is an earlier one")
	}
}

// TestSafeLinesAreDroppedAsReadAgain: their batch was acknowledged to an earlier process.
func TestSafeLinesAreDroppedAsReadAgain(t *testing.T) {
	s, _ := newTestSender(t)
	f := newFileProducer(s.shipper, "a", 1)
	f.ranges = []*batchRange{{file: f, after: 10, end: collector.Checkpoint{End: 30}, done: true, replay: &rangeReplay{}}}
	f.unpassedRanges.Store(1)
	for i, end := range []int64{20, 30} {
		event := &pipeline.Event{Dataset: pipeline.Dataset_LOG}
		if !f.replayEvent(event, collector.Checkpoint{End: end}) || f.lastEnd != end || f.activity.Load() != uint64(i+1) {
			t.Errorf("the line up to %d is new", end)
		}
	}
	if got := s.shipper.counters.reread[pipeline.Dataset_LOG].Load(); got != 2 || f.unpassedRanges.Load() != 0 || f.checkpoint.End != 30 {
		t.Errorf("%d lines are read again, checkpoint %d", got, f.checkpoint.End)
	}
	if f.replayEvent(&pipeline.Event{Dataset: pipeline.Dataset_LOG}, collector.Checkpoint{End: 31}) {
		t.Error("a line behind the range is an earlier one")
	}
}

// TestNamesOfALargeContainerAreCut to 1 KiB each.
func TestNamesOfALargeContainerAreCut(t *testing.T) {
	long := strings.Repeat("x", 3<<10)
	check := func(labels int, want *pipeline.Container) {
		t.Helper()
		container := &pipeline.Container{
			Id: long, Name: long, Image: long, ImageId: long[:100], Demo: true, Labels: []*pipeline.Label{{Key: "a", Value: strings.Repeat("y", labels)}},
		}
		if labels == 0 {
			want = container
		}
		b := newBatch()
		if err := b.addEvent(&pipeline.Event{Dataset: pipeline.Dataset_LOG, Container: container}, 1<<20); err != nil {
			t.Fatal(err)
		}
		var decoded pipeline.Batch
		if err := decoded.UnmarshalVT(b.buf); err != nil {
			t.Fatal(err)
		}
		if got := decoded.Containers; len(got) != 1 || got[0].String() != want.String() {
			t.Errorf("with %d bytes of labels: %.200v", labels, got)
		}
	}
	check(0, nil)
	check(maxContainer, &pipeline.Container{Id: long[:1<<10], Name: long[:1<<10], Image: long[:1<<10], ImageId: long[:100], Demo: true})
}
