package ship

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
	"tidegate/pipeline"
)

// earlierJournal writes the journal of an earlier process.
func (h *harness) earlierJournal(write func(j *journal.Journal)) {
	h.t.Helper()
	earlier, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := earlier.Start(); err != nil {
		h.t.Fatal(err)
	}
	write(earlier)
	if err := earlier.Close(false); err != nil {
		h.t.Fatal(err)
	}
}

// TestStateOfAnEarlierProcessIsRecovered: the files that have a name, those whose lines a batch waits for, and the batches with lines.
func TestStateOfAnEarlierProcessIsRecovered(t *testing.T) {
	h := newHarness(t)
	id := func(sequence uint64) batchID { return batchID{Epoch: 77, Partition: 1, Sequence: sequence} }
	h.earlierJournal(func(j *journal.Journal) {
		appendBatch := func(sequence uint64, file journal.FileID, after, end int64) {
			if err := j.Append(journal.Batch{ID: id(sequence), Ranges: []journal.Range{
				{File: file, After: after, End: collector.Checkpoint{End: end, ReadFrom: end}, Events: 5},
			}}); err != nil {
				t.Fatal(err)
			}
		}
		j.SetPartitions(3)
		replacedDone, replacedOpen := j.AddFile("done"), j.AddFile("open")
		appendBatch(1, replacedDone, 0, 100)
		appendBatch(2, replacedOpen, 0, 100)
		newDone, newOpen := j.AddFile("done"), j.AddFile("open")
		appendBatch(3, newDone, 0, 50)
		appendBatch(4, newDone, 50, 70)
		appendBatch(5, newOpen, 0, 50)
		j.Ack(id(1))
		j.Ack(id(4)) // it lies behind one that is open
		j.Ack(id(5))
		if err := j.Append(journal.Batch{ID: id(6)}); err != nil { // all its ranges were abandoned
			t.Fatal(err)
		}
	})
	shipper := h.startShipper(failpoints{})
	defer shipper.kill()
	if partitions := len(*shipper.partitions.Load()); partitions != 3 {
		t.Errorf("%d partitions", partitions)
	}
	describe := func(f *fileProducer) string {
		text := f.name
		for _, lines := range f.ranges {
			text += " " + strings.Repeat("done ", btoi(lines.done)) + "range"
		}
		if f.inState(fileClosed) {
			text += " closed"
		}
		return text
	}
	var named, replayed []string
	for name, file := range shipper.files {
		named = append(named, describe(file))
		if checkpoint, ok := file.Resume(); !ok || checkpoint.End != map[string]int64{"done": 0, "open": 50}[name] || file.lastEnd != checkpoint.End || file.rangeEnd != checkpoint.End {
			t.Errorf("%s resumes at %+v, %t", name, checkpoint, ok)
		}
	}
	for _, file := range shipper.filesToReplay {
		replayed = append(replayed, describe(file))
		if got := int(file.unpassedRanges.Load()); got != len(file.ranges) {
			t.Errorf("%s: %d ranges to pass of %d", file.name, got, len(file.ranges))
		}
	}
	slices.Sort(named)
	slices.Sort(replayed)
	if got := strings.Join(named, "; "); got != "done range done range; open" {
		t.Errorf("files %s", got)
	}
	if got := strings.Join(replayed, "; "); got != "done range done range; open range closed" {
		t.Errorf("files to replay %s", got)
	}
	sender := shipper.senders[senderKey{77, 1}]
	var waiting []uint64
	for _, pending := range sender.pending {
		waiting = append(waiting, pending.sequence)
		if pending.state != stateRecovering || pending.missingRanges != 1 || !pending.journaled {
			t.Errorf("batch %d: %+v", pending.sequence, pending)
		}
	}
	if !slices.Equal(waiting, []uint64{2, 3}) || sender.packets {
		t.Errorf("the batches %d wait", waiting)
	}
	state := shipper.journal.State()
	if len(state.Files) != 3 || len(state.Batches) != 2 {
		t.Errorf("the journal holds %d files, %d batches", len(state.Files), len(state.Batches))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestBatchThatIsTwiceInTheSpoolIsSentOnce, and takes no space afterwards.
func TestBatchThatIsTwiceInTheSpoolIsSentOnce(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	earlier, err := spool.Open(filepath.Join(h.state, "spool"), spool.Options{Limit: 1 << 30, Log: testLog()}, func(*spool.Header, spool.Ref, bool) {})
	if err != nil {
		t.Fatal(err)
	}
	header := spool.Header{Epoch: 77, Sequence: 1, Packets: true, Counts: make([]uint32, pipeline.NumDatasets+1)}
	header.Counts[pipeline.Dataset_DNS], header.Counts[pipeline.NumDatasets] = 3, 2 // of a dataset of a later version
	for range 2 {
		if _, err := earlier.Append(&header, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	earlier.Close(false)
	shipper := h.startShipper(failpoints{})
	eventually(t, "the batch is sent", func() bool {
		return shipper.Ledger() == Ledger{Recovered: 5, Delivered: 5} && shipper.spool.Bytes() == 0
	})
	if got := shipper.counters.delivered[pipeline.Dataset_DNS].Load(); got != 3 || shipper.counters.delivered[0].Load() != 2 || shipper.counters.batches.Load() != 1 {
		t.Errorf("%d events of DNS, %d of other datasets, %d batches", got, shipper.counters.delivered[0].Load(), shipper.counters.batches.Load())
	}
	h.closeShipper(shipper)
}

// TestShipperThatCannotStartHoldsNothing: its state folder is free.
func TestShipperThatCannotStartHoldsNothing(t *testing.T) {
	h := newHarness(t)
	check := func(want string) {
		t.Helper()
		if _, err := New(h.cfg, h.kcfg, h.id, testLog(), nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	h.cfg.BatchEvents = 0
	check("shipper.batch_events: ")
	h.cfg.BatchEvents = 50
	brokers := h.kcfg.Brokers
	h.kcfg.Brokers = nil
	check("kafka")
	h.kcfg.Brokers = brokers
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.cfg.StateDir = file
	check("make state folder: ")
	h.cfg.StateDir = h.state
	for name, want := range map[string]string{"journal": "read journal: ", "spool": "open spool: "} {
		path := filepath.Join(h.state, name)
		if name == "journal" {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		check(want)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	h.startShipper(failpoints{}).kill()
}

// TestFilesAreThoseThatMayBeOpened: not open, with a checkpoint, and of a prefix.
func TestFilesAreThoseThatMayBeOpened(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	shipper := h.startShipper(failpoints{})
	all := testFiles(4, 10)
	all[3].name = "other-3"
	for _, file := range all {
		if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the lines are safe", func() bool {
		return !slices.ContainsFunc(all, func(f *testFile) bool { return safeUpTo(shipper.File(f.name)) != 1000 })
	})
	check := func(prefix string, want ...string) {
		t.Helper()
		got := shipper.Files(prefix)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	check("")
	shipper.File(all[0].name).Close(true)
	shipper.File(all[1].name).Close(false)
	shipper.File(all[3].name).Close(true)
	shipper.File("file-new").Close(true) // without a line
	check("file-", "file-0")
	check("", "file-0", "other-3")
	check("x")
	h.closeShipper(shipper)
	shipper = h.startShipper(failpoints{})
	check("file-", "file-0", "file-2")
	h.closeShipper(shipper)
}

// TestClosedBatcherTakesNothing: a line or a packet that has passed the check of the shipper while it was closed.
func TestClosedBatcherTakesNothing(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	shipper := h.startShipper(failpoints{})
	file, packets := shipper.File("a"), shipper.Packets("p")
	for _, partition := range shipper.everyPartition() {
		partition.files.closeInput()
		partition.packets.closeInput()
	}
	if err := file.Ship(t.Context(), testFiles(1, 1)[0].event(0), collector.Checkpoint{End: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("a line: %v", err)
	}
	if packets.TryShip(dnsEvent(1, nil)) {
		t.Error("a packet is taken")
	}
	packets.Close()
	if got := h.closeShipper(shipper); got != (Ledger{Read: 1, Dropped: 1}) || shipper.counters.discarded[dropClosed][pipeline.Dataset_DNS].Load() != 1 {
		t.Errorf("%+v", got)
	}
}

// TestSampleIsThatOfTheLastLine that was shipped and has one, also while its batch waits.
func TestSampleIsThatOfTheLastLine(t *testing.T) {
	f := newFileProducer(nil, "a", 1)
	sample := func(start int64) collector.Sample {
		return collector.Sample{Start: start, Size: 5, Hash: uint64(start)}
	}
	f.checkpoint, f.hasCheckpoint = collector.Checkpoint{End: 10, ReadFrom: 9, Sample: sample(1)}, true
	check := func(want int64) {
		t.Helper()
		if got, ok := f.Resume(); !ok || got != (collector.Checkpoint{End: 10, ReadFrom: 9, Sample: sample(want)}) {
			t.Errorf("%+v, %t, want the sample at %d", got, ok, want)
		}
	}
	check(1)
	f.ranges = append(f.ranges, &batchRange{after: 10, end: collector.Checkpoint{End: 20}})
	check(1)
	f.ranges = append(f.ranges, &batchRange{after: 20, end: collector.Checkpoint{End: 30, Sample: sample(25)}})
	check(25)
	f.ranges = append(f.ranges, &batchRange{after: 30, end: collector.Checkpoint{End: 40, Sample: sample(35)}}, &batchRange{after: 40, end: collector.Checkpoint{End: 50}})
	check(35)
}

// TestBatchThatCannotBeJournaledIsKept when the shipper ends: it is in the queue, and another may take it.
func TestBatchThatCannotBeJournaledIsKept(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.Linger = time.Minute
	shipper := h.startShipper(failpoints{})
	file := testFiles(1, 3)[0]
	if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
		t.Fatal(err)
	}
	files := &shipper.files[file.name].partition.files
	shipper.cancel() // journalBatches has ended
	shipper.workers.Wait()
	if err := shipper.journal.Close(false); err != nil {
		t.Fatal(err)
	}
	files.mu.Lock()
	files.closeBatch()
	files.mu.Unlock()
	if files.journalBatch(files.takeHead()) || files.headTaken || files.bufferedEvents() != 3 || len(files.sender.pending) != 0 {
		t.Errorf("the head is taken: %t, %d events, %d batches", files.headTaken, files.bufferedEvents(), len(files.sender.pending))
	}
	shipper.kill()
}
