package ship

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
)

// deliverUnacknowledged runs a shipper that delivers all lines of files and is killed before it records any
// acknowledgement: the next process must send every line again, under the old ids.
func (h *harness) deliverUnacknowledged(files ...*testFile) {
	h.t.Helper()
	lines, inKafka := 0, atomic.Int64{}
	for _, file := range files {
		lines += file.lines
	}
	shipper := h.startShipper(failpoints{afterProduce: func(batchID) {
		inKafka.Add(1)
		runtime.Goexit()
	}})
	if err := shipAll(h.t.Context(), shipper, files); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "all lines are in Kafka", func() bool {
		if inKafka.Load() == 0 {
			return false
		}
		events, _ := h.deduplicatedEvents()
		return len(events) == lines
	})
	shipper.kill()
}

// producerOf returns the producer of a file of the earlier process, which nobody has opened yet.
func (s *Shipper) producerOf(name string) *fileProducer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name]
}

// passTime runs the maintenance of replays as often as it runs within d.
func (s *Shipper) passTime(d time.Duration) {
	for ; d > 0; d -= maxIdleStep {
		s.expireReplays(maxIdleStep)
	}
}

// shipRest ships what is left of files, closes shipper and checks that every line is in Kafka once.
func (h *harness) shipRest(shipper *Shipper, files ...*testFile) {
	h.t.Helper()
	if err := shipAll(h.t.Context(), shipper, files); err != nil {
		h.t.Fatal(err)
	}
	eventually(h.t, "all lines are sent", func() bool { return shipper.Ledger().Buffered == 0 })
	if ledger := h.closeShipper(shipper); ledger.Unconfirmed != 0 || ledger.Lost != 0 {
		h.t.Errorf("lines were given up: %+v", ledger)
	}
	h.checkExactlyOnce(files...)
}

// TestFileThatIsBeingOpenedIsWaitedFor: the maintenance runs while a file is being opened, when its state is
// changed and its owner has not shipped a line yet.
func TestFileThatIsBeingOpenedIsWaitedFor(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(1, 40)
	h.deliverUnacknowledged(files...)

	shipper := h.startShipper(failpoints{})
	producer := shipper.producerOf(files[0].name)
	maintained := make(chan struct{})
	producer.mu.Lock() // reopen holds it
	producer.setState(fileOpen)
	go func() {
		defer close(maintained)
		shipper.expireReplays(maintainInterval)
	}()
	time.Sleep(50 * time.Millisecond)
	producer.mu.Unlock()
	<-maintained
	h.shipRest(shipper, files...)
}

// TestOwnerThatWaitsForMemoryIsWaitedFor: an owner waits for memory longer than ResumeTimeout, and the maintenance
// runs when it has just got it.
func TestOwnerThatWaitsForMemoryIsWaitedFor(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(1, 40)
	h.deliverUnacknowledged(files...)

	shipper := h.startShipper(failpoints{})
	producer := shipper.File(files[0].name).(*fileProducer)
	full := newByteBudget(1)
	full.charge(1)
	waited := make(chan error)
	go func() { waited <- producer.waitForBudget(t.Context(), full, full.limit(), nil) }()
	eventually(t, "the owner waits", producer.blocked.Load)
	shipper.passTime(time.Hour)
	full.refund(1)
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	shipper.passTime(h.cfg.ResumeTimeout / 2)
	h.shipRest(shipper, files...)
}

// TestOutageGivesUpNoReplay: while Kafka is unavailable for longer than ResumeTimeout, files that were not opened
// yet are waited for. The reader of a log opens its second file when the lines of the first are shipped.
func TestOutageGivesUpNoReplay(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.kcfg.Timeout = 500 * time.Millisecond
	files := testFiles(2, 40)
	files[1].container = files[0].container
	h.deliverUnacknowledged(files...)
	h.stopBroker()

	// Kafka has not answered yet.
	shipper := h.startShipper(failpoints{})
	shipper.passTime(time.Hour)

	// It answers, and then does not accept the batch of the first file's new lines.
	h.startBroker()
	eventually(t, "Kafka answers", shipper.health.topicKnown.Load)
	h.stopBroker()
	files[0].lines += 40
	if err := files[0].shipTo(t.Context(), shipper.File(files[0].name)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "requests fail", func() bool { return len(shipper.stalledPartitions()) > 0 })
	shipper.passTime(time.Hour)
	h.startBroker()
	h.shipRest(shipper, files...)
}

// TestSlowKafkaGivesUpNoReplay: Kafka does not accept batches as fast as lines are read. The second file of a log is
// opened when the lines of the first are shipped, later than ResumeTimeout.
func TestSlowKafkaGivesUpNoReplay(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
	files := testFiles(2, 40)
	files[1].container = files[0].container
	h.deliverUnacknowledged(files...)

	accept := make(chan struct{})
	shipper := h.startShipper(failpoints{beforeProduce: func(batchID) { <-accept }})
	files[0].lines = 4000
	shipped := make(chan error, 1)
	first := shipper.File(files[0].name).(*fileProducer)
	go func() { shipped <- files[0].shipTo(t.Context(), first) }()
	eventually(t, "the first file waits for memory", first.blocked.Load)
	shipper.passTime(time.Hour)
	close(accept)
	if err := <-shipped; err != nil {
		t.Fatal(err)
	}
	h.shipRest(shipper, files...)
}

// TestStopGivesUpNoReplay: owners close their files when the process stops, and Close waits for Kafka for longer
// than ResumeTimeout.
func TestStopGivesUpNoReplay(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(2, 40)
	h.deliverUnacknowledged(files[0])

	shipper := h.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	shipper.File(files[0].name).Close(true)
	if err := files[1].shipTo(t.Context(), shipper.File(files[1].name)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan error, 1)
	go func() { closed <- shipper.Close(ctx) }()
	eventually(t, "the shipper is closing", shipper.closing.Load)
	shipper.passTime(time.Hour)
	cancel()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	h.shipRest(h.startShipper(failpoints{}), files...)
}

// TestTimeBeginsAnewWithEveryCall: a replay is given up when the file's owner has not called for ResumeTimeout.
// Each call of the owner counts: opening, a line, the close by which it lets another owner read on.
func TestTimeBeginsAnewWithEveryCall(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(1, 40)
	h.deliverUnacknowledged(files...)

	shipper := h.startShipper(failpoints{})
	almost := h.cfg.ResumeTimeout - 20*time.Second // the maintenance passes time as well
	shipper.passTime(almost)
	producer := shipper.File(files[0].name)
	shipper.passTime(almost)
	for i := range 3 {
		at := int64(i+1) * int64(files[0].size)
		if err := producer.Ship(t.Context(), files[0].event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
		shipper.passTime(almost)
	}
	producer.Close(true)
	shipper.passTime(almost)
	shipper.File(files[0].name)
	shipper.passTime(almost)
	if lines := shipper.Ledger().Unconfirmed; lines != 0 {
		t.Fatalf("%d lines were given up", lines)
	}
	shipper.passTime(h.cfg.ResumeTimeout - almost + 5*maxIdleStep)
	if lines := shipper.Ledger().Unconfirmed; lines != 37 {
		t.Errorf("%d lines were given up, want 37", lines)
	}
	h.closeShipper(shipper)
}

// TestPausedProcessGivesUpNoReplay: the process was stopped, or its machine suspended, for an hour. Its owners have
// had no time to read.
func TestPausedProcessGivesUpNoReplay(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(2, 40)
	h.deliverUnacknowledged(files...)

	shipper := h.startShipper(failpoints{})
	shipper.File(files[1].name)
	for range 3 {
		shipper.expireReplays(time.Hour)
	}
	h.shipRest(shipper, files...)
}

// TestSafeLinesStaySafeWhenAReplayIsGivenUp: a file comes back after its replay was given up. Its lines that the
// journal knows to be safe are not shipped again; those that nobody has confirmed are.
func TestSafeLinesStaySafeWhenAReplayIsGivenUp(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.ResumeTimeout = 200 * time.Millisecond
	file := testFiles(1, 30)[0]

	// The lines 10 to 19 were delivered and acknowledged; of the lines 0 to 9, nothing is known.
	shipper := h.startShipper(failpoints{})
	producer := shipper.File(file.name)
	for i := 10; i < 20; i++ {
		at := int64(i+1) * int64(file.size)
		if err := producer.Ship(t.Context(), file.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	h.closeShipper(shipper)
	h.writeJournal(func(earlier *journal.Journal) {
		id := earlier.AddFile(file.name)
		unknown, safe := batchID{Epoch: 77, Sequence: 1}, batchID{Epoch: 77, Sequence: 2}
		for _, batch := range []journal.Batch{
			{ID: unknown, Ranges: []journal.Range{{File: id, End: collector.Checkpoint{End: 1000, ReadFrom: 1000}, Events: 10}}},
			{ID: safe, Ranges: []journal.Range{
				{File: id, After: 1000, End: collector.Checkpoint{End: 2000, ReadFrom: 2000}, Events: 10},
			}},
		} {
			if err := earlier.Append(batch); err != nil {
				t.Fatal(err)
			}
		}
		earlier.Ack(safe)
	})

	shipper = h.startShipper(failpoints{})
	eventually(t, "the replay is given up", func() bool { return shipper.Ledger().Unconfirmed == 10 })
	time.Sleep(3 * h.cfg.ResumeTimeout)
	if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(shipper)
	h.checkExactlyOnce(file)
}

// TestFileThatIsGoneLeavesNothing: a file that exists no more has lines that are safe and lines of which nothing is
// known. When its replay has ended neither the file nor a batch is left, in memory and in the journal.
func TestFileThatIsGoneLeavesNothing(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	file := testFiles(1, 30)[0]
	h.writeJournal(func(earlier *journal.Journal) {
		id := earlier.AddFile(file.name)
		for sequence, state := range []string{"safe", "unknown", "safe", "unknown"} {
			batch := journal.Batch{ID: batchID{Epoch: 77, Sequence: uint64(sequence + 1)}, Ranges: []journal.Range{{
				File: id, After: int64(500 * sequence), Events: 5,
				End: collector.Checkpoint{End: int64(500 * (sequence + 1)), ReadFrom: int64(500 * (sequence + 1))},
			}}}
			if err := earlier.Append(batch); err != nil {
				t.Fatal(err)
			}
			if state == "safe" {
				earlier.Ack(batch.ID)
			}
		}
	})

	shipper := h.startShipper(failpoints{})
	if state := shipper.journal.State(); len(state.Files) != 1 || len(state.Batches) != 2 {
		t.Fatalf("the journal holds %+v", state)
	}
	producer := shipper.producerOf(file.name)
	shipper.Prune(func(string) bool { return false })
	eventually(t, "the file is dropped", func() bool { return shipper.producerOf(file.name) == nil })
	if ranges := producer.unpassedRanges.Load(); ranges != 0 {
		t.Errorf("%d ranges wait for the file", ranges)
	}
	eventually(t, "the batches are dropped", func() bool { return len(shipper.journal.State().Batches) == 0 })
	for _, sender := range shipper.everySender() {
		sender.mu.Lock()
		if len(sender.pending) != 0 {
			t.Errorf("%d batches of partition %d are left", len(sender.pending), sender.partition)
		}
		sender.mu.Unlock()
	}
	if ledger := h.closeShipper(shipper); ledger.Unconfirmed != 10 || ledger.Delivered != 0 {
		t.Errorf("%+v", ledger)
	}
	shipper = h.startShipper(failpoints{})
	if state := shipper.journal.State(); len(state.Files)+len(state.Batches) != 0 {
		t.Errorf("the journal holds %+v", state)
	}
	h.closeShipper(shipper)
}

// writeJournal replaces the journal of the state folder by one that write has filled.
func (h *harness) writeJournal(write func(*journal.Journal)) {
	h.t.Helper()
	dir := h.t.TempDir()
	earlier, err := journal.Open(dir, journal.Options{Log: testLog()})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := earlier.Start(); err != nil {
		h.t.Fatal(err)
	}
	write(earlier)
	if err := earlier.Close(true); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "journal"), filepath.Join(h.state, "journal")); err != nil {
		h.t.Fatal(err)
	}
}
