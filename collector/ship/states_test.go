package ship

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"

	"tidegate/collector"
	"tidegate/pipeline/kafka"
)

// TestClosedShipperIsClosedOnce: it takes no event, exports nothing, and its state folder is free.
func TestClosedShipperIsClosedOnce(t *testing.T) {
	harness := newHarness(t)
	registry := prometheus.NewRegistry()
	harness.startBroker()
	shipper, err := newShipper(harness.cfg, harness.kcfg, harness.id, testLog(), registry, failpoints{})
	if err != nil {
		t.Fatal(err)
	}
	families := func() int {
		t.Helper()
		list, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	file, packets := shipper.File("a"), shipper.Packets("x")
	if families() == 0 {
		t.Error("an open shipper exports nothing")
	}
	harness.closeShipper(shipper)
	if err := shipper.Close(t.Context()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if families() != 0 {
		t.Error("a closed shipper exports metrics")
	}
	if packets.TryShip(dnsEvent(1, nil)) || shipper.counters.discarded[dropClosed].total() != 1 {
		t.Error("a closed shipper takes a packet")
	}
	if err := file.Ship(t.Context(), dnsEvent(2, nil), collector.Checkpoint{End: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("a closed shipper takes a line: %v", err)
	}
	if err := file.Wait(t.Context(), nil, collector.Checkpoint{End: 1}); err != nil {
		t.Errorf("a line waits for a closed shipper: %v", err)
	}
	harness.closeShipper(harness.startShipper(failpoints{}))
}

// TestEndedWorkersStartNoRequest: the timers of pauses are stopped.
func TestEndedWorkersStartNoRequest(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	for _, sender := range shipper.everySender() {
		sender.mu.Lock()
		sender.timer = time.AfterFunc(time.Hour, sender.dispatchAgain)
		sender.mu.Unlock()
	}
	shipper.kill()
	for _, sender := range shipper.everySender() {
		if sender.timer.Stop() {
			t.Error("the timer of a sender runs")
		}
	}
	if shipper.ctx.Err() == nil {
		t.Error("the workers are not ended")
	}

	// The states of a file. The goroutine that would take the requests for maintenance has ended.
	isRequested := func() bool {
		select {
		case <-shipper.maintainNow:
			return true
		default:
			return false
		}
	}
	isRequested()
	f := newFileProducer(shipper, "a", 1)
	f.ranges = []*batchRange{{file: f}} // it is not dropped
	check := func(what string, call func() bool, state fileState, result, requested bool) {
		t.Helper()
		activity := f.activity.Load()
		if got := call(); got != result || !f.inState(state) || isRequested() != requested {
			t.Errorf("%s: %t, state %d", what, got, f.state.Load())
		}
		if f.activity.Load() < activity {
			t.Errorf("%s: the calls of the owner are counted backwards", what)
		}
	}
	gone := func() bool {
		select {
		case <-f.gone:
			return true
		default:
			return false
		}
	}
	check("opened", f.reopen, fileOpen, true, false)
	check("its name is gone", func() bool { f.SourceGone(); return gone() }, fileGone, true, true)
	check("opened while it is gone", f.reopen, fileGone, true, false)
	check("kept", func() bool { f.Close(true); return true }, fileIdle, true, false)
	check("gone while it is not open", func() bool { f.SourceGone(); return gone() }, fileIdle, true, true)
	check("opened again", func() bool { return f.reopen() && !gone() }, fileOpen, true, false)
	before := f.activity.Load()
	check("closed", func() bool { f.Close(false); return gone() }, fileClosed, true, true)
	if f.activity.Load() != before+1 {
		t.Error("Close is no call of the owner")
	}
	check("opened, but a newer file has its name", f.reopen, fileClosed, false, false)
	if check("missing", func() bool { f.setState(fileMissing); return f.reopen() }, fileOpen, true, false); gone() {
		t.Error("a file that was missing is gone")
	}
}

// TestRangesOfAFileAreInOrder; those at the front that are done move the checkpoint.
func TestRangesOfAFileAreInOrder(t *testing.T) {
	f := newFileProducer(nil, "a", 1)
	ranges := map[int64]*batchRange{}
	for _, after := range []int64{0, 20, 10, 40, 30} {
		ranges[after] = &batchRange{file: f, after: after, end: collector.Checkpoint{End: after + 10}, count: 1}
		f.insertRange(ranges[after])
	}
	list := func() string {
		var text []string
		for _, lines := range f.ranges {
			text = append(text, fmt.Sprintf("%d-%d", lines.after, lines.end.End))
		}
		return strings.Join(text, " ")
	}
	check := func(what, want string, checkpoint int64, droppable bool) {
		t.Helper()
		if got := list(); got != want || f.checkpoint.End != checkpoint || f.hasCheckpoint != (checkpoint > 0) || f.droppable() != droppable {
			t.Errorf("%s: %s, checkpoint %d, droppable %t", what, got, f.checkpoint.End, f.droppable())
		}
	}
	check("inserted", "0-10 10-20 20-30 30-40 40-50", 0, false)
	f.finishRange(ranges[10])
	check("in the middle", "0-10 10-20 20-30 30-40 40-50", 0, false)
	f.finishRange(ranges[30])
	check("another one", "0-10 10-20 20-30 30-40 40-50", 0, false)
	if f.finishRange(ranges[20]); f.ranges[1].count != 3 || !f.ranges[1].done {
		t.Errorf("the joined range has %d events", f.ranges[1].count)
	}
	check("between them", "0-10 10-40 40-50", 0, false)
	f.finishRange(ranges[0])
	check("at the front", "40-50", 40, false)
	f.setState(fileClosed)
	if f.finishRange(ranges[40]); !ranges[40].done || ranges[40].batch != nil {
		t.Error("the range is not done")
	}
	check("the last", "", 50, true)
	f.setState(fileOpen)
	check("open", "", 50, false)
	f.setState(fileMissing)
	check("missing", "", 50, true)
	f.insertRange(ranges[0])
	f.removeRange(ranges[10])
	check("another range is removed", "0-10", 50, false)
	f.removeRange(ranges[0])
	check("removed", "", 50, true)
	f.skipTo(70)
	if f.lastEnd != 70 || f.rangeEnd != 70 || f.currentRange != nil {
		t.Errorf("skipped to %d, %d", f.lastEnd, f.rangeEnd)
	}
}

// TestFailureOfKafkaIsLoggedByItsRemedy, the first one and then one of many; all are counted.
func TestFailureOfKafkaIsLoggedByItsRemedy(t *testing.T) {
	for cause, want := range map[error]string{
		kafkago.TopicAuthorizationFailed: "level=ERROR msg=\"kafka denies access: buffering and retrying\"",
		kafkago.MessageSizeTooLarge:      "level=ERROR msg=\"kafka rejected a batch; its events are lost\"",
		kafkago.LeaderNotAvailable:       "level=WARN msg=\"kafka unavailable: buffering",
	} {
		var logged bytes.Buffer
		shipper := &Shipper{log: slog.New(slog.NewTextHandler(&logged, nil)), health: newBrokerHealth()}
		for range 3 {
			shipper.recordProduceResult(cause)
		}
		if got := logged.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, want) {
			t.Errorf("%v: logged %s", cause, got)
		}
		if count := shipper.counters.produceErrors[kafka.Classify(cause)].Load(); count != 3 {
			t.Errorf("%v: %d are counted", cause, count)
		}
		if err := shipper.Unavailable(); !errors.Is(err, cause) || time.Since(shipper.health.unavailableSince) > time.Minute {
			t.Errorf("unavailable because of %v since %s", err, shipper.health.unavailableSince)
		}
	}
}

// TestLedgerIsBalancedWhenEveryEventIsSomewhere.
func TestLedgerIsBalancedWhenEveryEventIsSomewhere(t *testing.T) {
	balanced := Ledger{Read: 100, Recovered: 23, Delivered: 60, Buffered: 31, Dropped: 17, Lost: 8, Unconfirmed: 7, Spooled: 5, Reread: 3}
	if !balanced.IsBalanced() {
		t.Error("a balanced ledger is not")
	}
	for i, change := range []func(*Ledger){
		func(l *Ledger) { l.Read++ }, func(l *Ledger) { l.Recovered++ }, func(l *Ledger) { l.Delivered++ }, func(l *Ledger) { l.Buffered++ },
		func(l *Ledger) { l.Dropped++ }, func(l *Ledger) { l.Lost++ }, func(l *Ledger) { l.Unconfirmed++ },
	} {
		changed := balanced
		if change(&changed); changed.IsBalanced() {
			t.Errorf("change %d leaves the ledger balanced", i)
		}
	}
	if !slices.Equal(reasonNames[:], []string{"memory", "spool_full", "spool_failed", "too_large", "closed", "rejected", "spool_damaged"}) {
		t.Errorf("reasons %q", reasonNames)
	}
}

// TestEventsOfOpenBatchesAreBuffered: those that no batch was closed for yet, lines and packets.
func TestEventsOfOpenBatchesAreBuffered(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.Linger, harness.cfg.SpoolAfter = time.Minute, time.Minute
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	file := testFiles(1, 7)[0]
	if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
		t.Fatal(err)
	}
	packets := shipper.Packets("packets")
	for i := range 5 {
		packets.TryShip(dnsEvent(i, file.container))
	}
	if got := shipper.Ledger(); got != (Ledger{Read: 12, Buffered: 12}) || shipper.isDrained() {
		t.Errorf("%+v, drained %t", got, shipper.isDrained())
	}
	if partitions, events := shipper.missingPartitions(); len(partitions) != 0 || events != 0 || shipper.missingError() != nil {
		t.Errorf("%d events wait for the partitions %v", events, partitions)
	}
	if got := harness.closeShipper(shipper); got != (Ledger{Read: 12, Delivered: 12}) {
		t.Errorf("%+v", got)
	}
}

// TestMissingPartitionsAreNamed with the number of the events that wait for them, and what to do: lines and packets of open batches, and
// batches of this and of earlier processes.
func TestMissingPartitionsAreNamed(t *testing.T) {
	s := &Shipper{topic: "t", health: newBrokerHealth(), senders: map[senderKey]*sender{}}
	current := []*partition{{index: 0}, {index: 1}}
	s.partitions.Store(&current)
	add := func(index int, lines, packets int) {
		added := &partition{index: index}
		added.files.open, added.packets.open = &batch{eventCount: lines}, &batch{eventCount: packets}
		s.allPartitions = append(s.allPartitions, added)
	}
	add(1, 100, 100)
	add(3, 2, 3)
	add(4, 0, 0)
	s.senders[senderKey{1, 0}] = &sender{partition: 0, pending: waiting(5, stateReady)}
	s.senders[senderKey{1, 3}] = &sender{partition: 3, pending: waiting(5, stateReady, stateDone)}
	s.senders[senderKey{2, 2}] = &sender{partition: 2, pending: waiting(5, stateRecovering)}
	check := func(want string) {
		t.Helper()
		got := ""
		if err := s.Unavailable(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check("") // Kafka has not answered
	s.health.topicKnown.Store(true)
	check("10 events wait for partitions that topic t lacks (2, 3); it has 2: add partitions until it has 4")
	for index := 5; index < 19; index++ {
		add(index, 1, 0)
	}
	check("24 events wait for partitions that topic t lacks (2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18); it has 2: add partitions until it has 19")
	add(19, 0, 1)
	check("25 events wait for partitions that topic t lacks (2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, …); it has 2: add partitions until it has 20")
	s.log = testLog()
	s.recordProduceResult(kafkago.LeaderNotAvailable)
	check(kafkago.LeaderNotAvailable.Error())
}

// TestEndOfAnOutageIsLogged if its begin was. It ends the pauses after failed requests, unless it was short.
func TestEndOfAnOutageIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		s, _ := newTestSender(t)
		shipper := s.shipper
		shipper.log = slog.New(slog.NewTextHandler(&logged, nil))
		shipper.senders = map[senderKey]*sender{{}: s}
		outage := func(what string, length time.Duration, begin, end string, paused bool) {
			t.Helper()
			shipper.recordProduceResult(kafkago.LeaderNotAvailable)
			if got := logged.String(); strings.Contains(got, "kafka unavailable: buffering; logs stay in their files, packet events are spooled") != (begin != "") {
				t.Errorf("%s: logged %s", what, got)
			}
			logged.Reset()
			s.retryAt = time.Now().Add(time.Hour)
			time.Sleep(length)
			shipper.recordProduceResult(nil)
			if got := logged.String(); strings.Count(got, "\n") != strings.Count(end, "\n") || !strings.HasSuffix(got, end) || s.retryAt.IsZero() == paused {
				t.Errorf("%s: logged %s, paused until %s", what, got, s.retryAt)
			}
			logged.Reset()
			shipper.recordProduceResult(nil)
			if logged.Len() > 0 {
				t.Errorf("%s: logged again %s", what, &logged)
			}
		}
		outage("the first", 1501*time.Millisecond, "logged", "level=INFO msg=\"kafka available again\" after=1.501s\n", false)
		outage("soon behind another", 2*time.Second, "", "", false)
		time.Sleep(errorLogInterval)
		outage("the change of a leader", time.Second, "logged", "level=INFO msg=\"kafka available again\" after=1s\n", true)
	})
}

// TestKeysAreSpreadOverThePartitions, each to one.
func TestKeysAreSpreadOverThePartitions(t *testing.T) {
	for _, count := range []int{1, 7, maxPartitions} {
		keys := make([]int, count)
		for i := range 200 * count {
			key := fmt.Sprint("container", i)
			at := partitionFor(key, count)
			if at < 0 || at >= count || partitionFor(key, count) != at {
				t.Fatalf("%s is in partition %d of %d", key, at, count)
			}
			keys[at]++
		}
		if slices.Min(keys) < 100 || slices.Max(keys) > 300 {
			t.Errorf("%d partitions have between %d and %d keys of %d", count, slices.Min(keys), slices.Max(keys), 200*count)
		}
	}
}

// TestMemoryOfFilesIsSharedByThePartitionsInUse: what batches of the others hold is not there for them, but a quarter is in any case.
func TestMemoryOfFilesIsSharedByThePartitionsInUse(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.BufferBytes = 8 << 20
	shipper := harness.startShipper(failpoints{})
	defer shipper.kill()
	const memory = 4 << 20
	check := func(what string, count int, each int64, abandoned ...int) {
		t.Helper()
		shipper.setPartitions(count)
		if got := len(*shipper.partitions.Load()); got != count {
			t.Errorf("%s: %d partitions", what, got)
		}
		for i, partition := range shipper.everyPartition() {
			if budget := partition.files.budget; budget.abandoned.Load() != slices.Contains(abandoned, i) || i < count && budget.limit() != each {
				t.Errorf("%s: partition %d has %d bytes, abandoned %t, want %d", what, i, budget.limit(), budget.abandoned.Load(), each)
			}
			if partition.index != i || partition.packets.budget != shipper.packetBudget || partition.packets.budget.limit() != memory {
				t.Errorf("%s: partition %d is %d", what, i, partition.index)
			}
		}
	}
	check("all", 4, memory/4)
	check("fewer", 2, memory/2, 2, 3)
	shipper.everyPartition()[3].files.budget.charge(memory / 2)
	check("one of the others holds a half", 2, memory/4, 2, 3)
	shipper.everyPartition()[2].files.budget.charge(memory / 2)
	check("the others hold all", 2, memory/8, 2, 3)
	check("more", 3, memory/6, 3)
	check("all again", 5, memory/5)
}
