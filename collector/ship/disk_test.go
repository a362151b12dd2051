package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
	"tidegate/pipeline"
	"tidegate/pipeline/lineartest"
)

// A fullDisk is a file whose writes fail half-way while the disk is full.
type fullDisk struct {
	frame.File
	full *atomic.Bool
}

func (f fullDisk) WriteAt(data []byte, at int64) (int, error) {
	if !f.full.Load() {
		return f.File.WriteAt(data, at)
	}
	written, _ := f.File.WriteAt(data[:len(data)/2], at)
	return written, unix.ENOSPC
}

// TestFullDisk: lines wait while the disk is full, packets are delivered, and afterwards everything is
// delivered.
func TestFullDisk(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	var full atomic.Bool
	shipper := harness.startShipper(failpoints{wrapFile: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true)
	all := testFiles(3, 200)
	packets := shipper.Packets("packets")
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "packets are delivered", func() bool { return shipper.safePackets() == 300 })
	eventually(t, "the error is counted", func() bool { return shipper.journal.Errors() > 0 })
	if lines := shipper.counters.delivered[pipeline.Dataset_LOG].Load(); lines != 0 {
		t.Errorf("%d lines were produced and are not in the journal", lines)
	}
	harness.stopBroker()
	for i := range 300 {
		packets.TryShip(dnsEvent(300+i, nil))
	}
	eventually(t, "the spool's error is counted", func() bool { return shipper.spool.Errors() > 0 })
	eventually(t, "packets would be shed because of the disk", func() bool { return shipper.shedReason() == dropDisk })
	full.Store(false)
	eventually(t, "the spool stores the packets", func() bool { return shipper.safePackets() == 600 })
	harness.startBroker()
	if ledger := harness.closeShipper(shipper); ledger.Delivered != 1200 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkExactlyOnce(all...)
	harness.checkQueries(600)
}

// TestRealFullDisk starts on a file system that is full.
func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a tmpfs, which needs root: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	harness := newHarness(t)
	harness.startBroker()
	harness.cfg.StateDir = dir
	if _, err := collector.LoadID(dir); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	shipper := harness.startShipper(failpoints{})
	all := testFiles(2, 100)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the error is counted", func() bool { return shipper.journal.Errors() > 1 })
	os.Remove(filler)
	if ledger := harness.closeShipper(shipper); ledger.Delivered != 200 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkExactlyOnce(all...)
}

// TestDamagedJournal: no line is lost, whatever is damaged. A torn tail, which a killed process leaves, does
// not duplicate lines either.
func TestDamagedJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range 6 {
		harness := newHarness(t)
		harness.startBroker()
		all := testFiles(5, 600)
		harness.cfg.BufferBytes = 4 * harness.cfg.BatchBytes
		var batches atomic.Int64
		shipper := harness.startShipper(failpoints{beforeProduce: func(batchID) { exitAfter(&batches, 10) }})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { shipAll(ctx, shipper, all) })
		eventually(t, "senders have stopped", func() bool { return batches.Load() > 12 })
		cancel()
		wg.Wait()
		shipper.kill()
		name := filepath.Join(harness.state, "journal")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		torn := round < 3
		if torn {
			text = append(text, text[frame.FileHeaderSize:frame.FileHeaderSize+5+rng.IntN(15)]...)
		} else {
			at := frame.FileHeaderSize + rng.IntN(len(text)-frame.FileHeaderSize)
			copy(text[at:min(len(text), at+50)], make([]byte, 50))
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		shipper = harness.startShipper(failpoints{})
		if shipper.journal.Unreadable() == 0 {
			t.Error("the damage was not counted")
		}
		if kept, err := os.ReadFile(name + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("the damaged journal was not kept: %v", err)
		}
		if err := shipAll(t.Context(), shipper, all); err != nil {
			t.Fatal(err)
		}
		harness.closeShipper(shipper)
		if torn {
			harness.checkExactlyOnce(all...)
			continue
		}
		harness.checkAtLeastOnce(all...)
	}
}

// checkAtLeastOnce checks that every line of files is in Kafka.
func (h *harness) checkAtLeastOnce(files ...*testFile) {
	h.t.Helper()
	found := map[string]bool{}
	events, _ := h.deduplicatedEvents()
	for _, event := range events {
		found[event.Log.GetMessage()] = true
	}
	for _, file := range files {
		for i := range file.lines {
			if !found[file.message(i)] {
				h.t.Fatalf("%s is lost", file.message(i))
			}
		}
	}
}

// TestDamagedSpool: damaged batches are counted by dataset and kept on disk, the others are sent.
func TestDamagedSpool(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.Linger = time.Minute // every batch has 50 events, also on a busy machine
	shipper := harness.startShipper(failpoints{})
	packets := shipper.Packets("packets")
	for i := range 1000 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "all is spooled", func() bool { return shipper.safePackets() == 1000 })
	shipper.kill()
	names, _ := filepath.Glob(filepath.Join(harness.state, "spool", "*.seg"))
	if len(names) != 1 {
		t.Fatal(names)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	heads := bytes.Split(text, []byte{0xF7, 'T', 'G'}) // header and batch of the first, of the second, …
	at := len(heads[0]) + 3 + len(heads[1]) + 3
	text[at+100] ^= 1 // in the first batch
	at += len(heads[2]) + 3
	text[at+20] ^= 1           // in the header of the second
	text = text[:len(text)-10] // and a torn tail
	if err := os.WriteFile(names[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.startBroker()
	shipper = harness.startShipper(failpoints{})
	ledger := harness.closeShipper(shipper)
	if ledger.Lost != 100 || ledger.Recovered != 950 || ledger.Delivered != 850 || shipper.spool.Unreadable() == 0 {
		t.Errorf("ledger %+v, unreadable %d", ledger, shipper.spool.Unreadable())
	}
	if kept, err := os.ReadFile(names[0] + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("the damaged segment was not kept: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(harness.state, "spool", "*.seg")); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

// TestSpoolThatIsOff: without a spool, packets and lines that cannot be read again wait in memory. Packets are shed
// when it is used up, and counted under that reason. What an earlier process has spooled is sent.
func TestSpoolThatIsOff(t *testing.T) {
	harness := newHarness(t)
	spooling := harness.startShipper(failpoints{})
	packets := spooling.Packets("packets")
	for i := range 100 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "all is spooled", func() bool { return spooling.safePackets() == 100 })
	spooling.kill()

	harness.cfg.SpoolBytes, harness.cfg.BufferBytes = 0, 4*harness.cfg.BatchBytes
	shipper := harness.startShipper(failpoints{})
	file := testFiles(1, 40)[0]
	producer := shipper.File(file.name)
	if err := file.shipTo(t.Context(), producer); err != nil {
		t.Fatal(err)
	}
	producer.SourceGone()
	packets = shipper.Packets("packets")
	next := 100
	for ; packets.TryShip(dnsEvent(next, nil)); next++ {
	}
	if reason := shipper.shedReason(); reason != dropMemory {
		t.Errorf("shed for reason %d", reason)
	}
	time.Sleep(3 * maintainInterval) // batches have waited for SpoolAfter
	if shipper.spool.Errors() != 0 || shipper.spool.Condition() != spool.Accepting {
		t.Errorf("errors %d, condition %d", shipper.spool.Errors(), shipper.spool.Condition())
	}
	if ledger := shipper.Ledger(); ledger.Dropped != 1 || ledger.Spooled != 0 || ledger.Recovered != 100 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.startBroker()
	eventually(t, "all is sent", func() bool { return shipper.Ledger().Buffered == 0 })
	harness.closeShipper(shipper)
	harness.checkQueries(next)
	harness.checkExactlyOnce(file)
}

// TestJournalIsCompacted: a journal that was rewritten several times is readable and has every file.
func TestJournalIsCompacted(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{compactAt: 2000})
	all := testFiles(3, 3000)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is delivered", func() bool { return shipper.Ledger().Delivered == 9000 })
	shipper.kill()
	compacted, err := journal.Open(harness.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if state := compacted.State(); compacted.Unreadable() != 0 || len(state.Files) != 3 || state.Partitions != 4 {
		t.Errorf("unreadable %d, %d files, %d batches, %d partitions", compacted.Unreadable(), len(state.Files),
			len(state.Batches), state.Partitions)
	}
}

// FuzzRecovery checks that files resume at a valid checkpoint, whatever the journal contains.
func FuzzRecovery(f *testing.F) {
	dir := f.TempDir()
	written, err := journal.Open(dir, journal.Options{Log: testLog()})
	if err != nil {
		f.Fatal(err)
	}
	if err := written.Start(); err != nil {
		f.Fatal(err)
	}
	file := written.AddFile("a")
	for i := range int64(5) {
		id := batchID{Epoch: 1, Partition: 2, Sequence: uint64(i)}
		end := collector.Checkpoint{End: 100 * (i + 1), ReadFrom: 100*i + 50}
		lines := journal.Range{File: file, After: 100 * i, End: end, Events: 3}
		if err := written.Append(journal.Batch{ID: id, Ranges: []journal.Range{lines}}); err != nil {
			f.Fatal(err)
		}
		if i%2 == 0 {
			written.Ack(id)
		}
	}
	written.Close(false)
	text, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:len(text)-5])
	f.Fuzz(func(t *testing.T, text []byte) {
		lineartest.Default.Check(t, len(text), func() {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "journal"), text, 0o600); err != nil {
				t.Fatal(err)
			}
			written, err := journal.Open(dir, journal.Options{Log: slog.New(slog.DiscardHandler)})
			if errors.Is(err, frame.ErrNewer) {
				return // a journal of a newer version is refused
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nothing is produced
			shipper := &Shipper{
				cfg: Default(), lifecycle: lifecycle{ctx: ctx}, journal: written, senders: map[senderKey]*sender{},
				files: map[string]*fileProducer{},
			}
			shipper.recoverJournal(written.State())
			for _, producer := range shipper.files {
				checkpoint, _ := producer.Resume()
				if checkpoint.End < 0 || checkpoint.ReadFrom < 0 || checkpoint.ReadFrom > checkpoint.End ||
					checkpoint.End > producer.lastEnd {
					t.Errorf("file %q resumes at %v, last %d", producer.name, checkpoint, producer.lastEnd)
				}
			}
			for _, f := range shipper.filesToReplay {
				f.abandonReplay()
			}
		})
	})
}

// TestKillMinusNine kills a real process repeatedly. Lines that its metric reported as safe must be in Kafka.
func TestKillMinusNine(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	harness := newHarness(t)
	harness.startBroker()
	killed, safe := killChildren(t, harness)
	if t.Logf("%d processes were killed, %d lines were safe before", killed, safe); killed == 0 || safe == 0 {
		t.Error("no process was killed, or none had delivered a line")
	}
	harness.checkExactlyOnce(testFiles(childFiles, childLines)...)
}

// TestUpgrade: journal and spool of commit 1b86dc3, which had no version and ten datasets, are kept, counted
// and do not stop the collector.
func TestUpgrade(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	if err := os.Mkdir(filepath.Join(harness.state, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := map[string]string{ // path in the state folder → file in testdata
		filepath.Join(harness.state, "journal"):               "journal/testdata/journal.v1",
		filepath.Join(harness.state, "spool", "00000001.seg"): "spool/testdata/segment.v1",
	}
	for path, testdata := range old {
		text, err := os.ReadFile(testdata)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	shipper := harness.startShipper(failpoints{})
	if shipper.journal.Unreadable() == 0 || shipper.spool.Unreadable() == 0 {
		t.Errorf("unreadable: journal %d, spool %d", shipper.journal.Unreadable(), shipper.spool.Unreadable())
	}
	all := testFiles(2, 30)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)
	for path, testdata := range old {
		want, err := os.ReadFile(testdata)
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := os.ReadFile(path + ".unreadable"); err != nil || !bytes.Equal(kept, want) {
			t.Errorf("%s was not kept: %v", path, err)
		}
	}
}

// TestNumberOfADamagedFileIsNotReused damages the record of the file with the highest number. Its range stays in
// a batch, and must not move the checkpoint of a file that is added later.
func TestNumberOfADamagedFileIsNotReused(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	files := testFiles(3, 5)
	kept, damaged, added := files[0], files[1], files[2]
	added.lines = 100
	earlier, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Start(); err != nil {
		t.Fatal(err)
	}
	keptID, damagedID := earlier.AddFile(kept.name), earlier.AddFile(damaged.name)
	err = earlier.Append(journal.Batch{ID: batchID{Epoch: 77, Sequence: 1}, Ranges: []journal.Range{
		{File: keptID, End: collector.Checkpoint{End: 500, ReadFrom: 500}, Events: 5},
		{File: damagedID, End: collector.Checkpoint{End: 5000, ReadFrom: 5000}, Events: 50},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Close(true); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.state, "journal")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[bytes.Index(text, []byte(damaged.name))] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}

	// Only the recovered batch is delivered. The lines of the added file stay unsent.
	shipper := h.startShipper(failpoints{beforeProduce: func(id batchID) {
		if id.Epoch != 77 {
			runtime.Goexit()
		}
	}})
	_ = added.shipTo(t.Context(), shipper.File(added.name))
	_ = kept.shipTo(t.Context(), shipper.File(kept.name))
	eventually(t, "acknowledged", func() bool { return safeUpTo(shipper.File(kept.name)) == 500 })
	time.Sleep(100 * time.Millisecond)
	shipper.kill()

	shipper = h.startShipper(failpoints{})
	if err := shipAll(t.Context(), shipper, []*testFile{kept, added}); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(shipper)
	h.checkExactlyOnce(kept, added)
}

// TestUnwrittenShrinkHoldsTheBatch abandons the replay of a file while the disk is full. The shorter batch is not
// sent before the journal has its new extent: otherwise the next process would send more lines under its id, and
// the engine would drop them as a duplicate.
func TestUnwrittenShrinkHoldsTheBatch(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.ResumeTimeout = 300 * time.Millisecond
	file := testFiles(1, 10)[0]
	earlier, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Start(); err != nil {
		t.Fatal(err)
	}
	id := earlier.AddFile(file.name)
	err = earlier.Append(journal.Batch{ID: batchID{Epoch: 77, Sequence: 1}, Ranges: []journal.Range{
		{File: id, End: collector.Checkpoint{End: 1000, ReadFrom: 1000}, Events: 10},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Close(true); err != nil {
		t.Fatal(err)
	}

	var full atomic.Bool
	shipper := h.startShipper(failpoints{wrapFile: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true)
	part := *file
	part.lines = 4
	_ = part.shipTo(t.Context(), shipper.File(file.name))
	time.Sleep(900 * time.Millisecond) // ResumeTimeout ends the replay
	if ledger := shipper.Ledger(); ledger.Delivered != 0 {
		t.Errorf("%d events were delivered before the journal had the extent of their batch", ledger.Delivered)
	}
	shipper.kill()

	shipper = h.startShipper(failpoints{})
	_ = file.shipTo(t.Context(), shipper.File(file.name))
	h.closeShipper(shipper)
	h.checkExactlyOnce(file)
}

// TestOversizedEventDelaysNoOther ships an event that is larger than a batch, and then one that fits: it is sent
// after the linger time.
func TestOversizedEventDelaysNoOther(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	shipper := h.startShipper(failpoints{})
	defer h.closeShipper(shipper)
	producer, file := shipper.File("f"), testFiles(1, 10)[0]
	oversized := file.event(0)
	oversized.Log.Message = strings.Repeat("x", int(h.cfg.BatchBytes))
	if err := producer.Ship(t.Context(), oversized, collector.Checkpoint{End: 100, ReadFrom: 100}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * h.cfg.Linger)
	if err := producer.Ship(t.Context(), file.event(1), collector.Checkpoint{End: 200, ReadFrom: 200}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "delivery", func() bool { return shipper.Ledger().Delivered == 1 })
}

// TestFullDiskCausesNoBusyLoop fills the disk while Kafka is away and a file is removed: the batches of the file
// can go neither to the journal nor to the spool. They are tried again now and then, and do not grow.
func TestFullDiskCausesNoBusyLoop(t *testing.T) {
	h := newHarness(t)
	h.cfg.BufferBytes = 64 << 20
	var full atomic.Bool
	shipper := h.startShipper(failpoints{wrapFile: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	file := testFiles(1, 50*70)[0]
	producer := shipper.File(file.name)
	_ = file.shipTo(t.Context(), producer)
	partition := shipper.everyPartition()[0]
	eventually(t, "the window is closed", func() bool { return !partition.files.sender.windowOpen() })
	full.Store(true)
	packets := shipper.Packets("p")
	for i := 0; shipper.packetBudget.used.Load() < shipper.packetBudget.limit()/3; i++ {
		event := dnsEvent(i, nil)
		event.Dns.QuestionName = strings.Repeat("q", 1000)
		packets.TryShip(event)
	}
	producer.SourceGone()
	size := func() (bytes int) {
		partition.files.mu.Lock()
		defer partition.files.mu.Unlock()
		for _, batch := range partition.files.queue {
			bytes += len(batch.buf)
		}
		return bytes
	}
	// What was read before is on its way for a while.
	eventually(t, "the batches wait", func() bool {
		before := size()
		time.Sleep(time.Second)
		return before > 0 && size() == before
	})
	before, errorsBefore := size(), shipper.journal.Errors()
	time.Sleep(2 * time.Second)
	if after := size(); after > before {
		t.Errorf("the waiting batches grew from %d to %d bytes", before, after)
	}
	if failed := shipper.journal.Errors() - errorsBefore; failed == 0 || failed > 100 {
		t.Errorf("%d writes of the journal failed in two seconds, want a few", failed)
	}
	full.Store(false)
	h.startBroker()
	eventually(t, "delivery", func() bool { return shipper.Ledger().Buffered == 0 })
	h.closeShipper(shipper)
	h.checkAtLeastOnce(file)
}

// TestWholeCopyOfATornBatchIsDelivered puts two copies of a batch into the spool, the first of them torn.
func TestWholeCopyOfATornBatchIsDelivered(t *testing.T) {
	h := newHarness(t)
	dir := filepath.Join(h.state, "spool")
	open := func() *spool.Spool {
		opened, err := spool.Open(dir, spool.Options{Limit: 1 << 30, Log: testLog()}, func(*spool.Header, spool.Ref, bool) {})
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	appendBatch := func(to *spool.Spool, sequence uint64) {
		header := spool.Header{Epoch: 9, Sequence: sequence, Packets: true, Counts: make([]uint32, pipeline.NumDatasets)}
		header.Counts[0] = 7
		if _, err := to.Append(&header, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	first := open()
	appendBatch(first, 1)
	appendBatch(first, 2)
	first.Close(false)
	segment := filepath.Join(dir, "00000001.seg")
	info, err := os.Stat(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(segment, info.Size()-50); err != nil {
		t.Fatal(err)
	}
	second := open()
	appendBatch(second, 2)
	second.Close(false)

	shipper := h.startShipper(failpoints{})
	defer shipper.kill()
	if ledger := shipper.Ledger(); ledger.Recovered != 14 || ledger.Buffered != 14 || ledger.Lost != 0 {
		t.Errorf("recovered %d, buffered %d, lost %d; want 14, 14, 0", ledger.Recovered, ledger.Buffered, ledger.Lost)
	}
}

// TestRecoveredBatchAmongThoseOfPacketsIsAcknowledged recovers a batch of lines whose epoch also has a spooled batch
// of packets. After its delivery the journal does not have it any more.
func TestRecoveredBatchAmongThoseOfPacketsIsAcknowledged(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	file := testFiles(1, 5)[0]
	earlier, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Start(); err != nil {
		t.Fatal(err)
	}
	id := earlier.AddFile(file.name)
	err = earlier.Append(journal.Batch{ID: batchID{Epoch: 77, Sequence: 2}, Ranges: []journal.Range{
		{File: id, End: collector.Checkpoint{End: 500, ReadFrom: 500}, Events: 5},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := earlier.Close(true); err != nil {
		t.Fatal(err)
	}
	packets, err := spool.Open(filepath.Join(h.state, "spool"), spool.Options{Limit: 1 << 30, Log: testLog()},
		func(*spool.Header, spool.Ref, bool) {})
	if err != nil {
		t.Fatal(err)
	}
	header := spool.Header{Epoch: 77, Sequence: 1, Packets: true, Counts: make([]uint32, pipeline.NumDatasets)}
	header.Counts[0] = 1
	if _, err := packets.Append(&header, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	packets.Close(false)

	shipper := h.startShipper(failpoints{})
	_ = file.shipTo(t.Context(), shipper.File(file.name))
	eventually(t, "delivery", func() bool { return shipper.Ledger().Delivered == 6 })
	shipper.File(file.name).Close(true)
	h.closeShipper(shipper)

	later, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if batches := later.State().Batches; len(batches) != 0 {
		t.Errorf("the journal still has %v after everything was delivered", batches)
	}
	if err := later.Close(true); err != nil {
		t.Fatal(err)
	}
}

// TestUnwrittenShrinkIsWrittenOnce: the batch waits until the journal has the extent of its range, and is sent then.
func TestUnwrittenShrinkIsWrittenOnce(t *testing.T) {
	s, sent := newTestSender(t)
	shipper := s.shipper
	shipper.host = &pipeline.Host{}
	var full atomic.Bool
	var err error
	shipper.journal, err = journal.Open(t.TempDir(), journal.Options{
		Log: testLog(), Wrap: func(f frame.File) frame.File { return fullDisk{f, &full} },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := shipper.journal.Start(); err != nil {
		t.Fatal(err)
	}
	f := newFileProducer(shipper, "a", shipper.journal.AddFile("a"))
	pending := waiting(7, stateRecovering)[0]
	pending.missingRanges = 1
	s.pending = []*pendingBatch{pending}
	lines := &batchRange{file: f, after: 10, end: collector.Checkpoint{End: 20, ReadFrom: 20}, count: 3, replay: &rangeReplay{sender: s, pending: pending}}
	check := func(what string, unwritten, missing int, want string) {
		t.Helper()
		if got := fmt.Sprint(sent()); len(shipper.unwritten) != unwritten || pending.missingRanges != missing || got != want {
			t.Errorf("%s: %d ranges are not written, %d are missing, %s are sent", what, len(shipper.unwritten), pending.missingRanges, got)
		}
	}
	full.Store(true)
	shipper.journalShrink(lines)
	check("a full disk", 1, 1, "[]")
	shipper.journalUnwritten()
	check("still full", 1, 1, "[]")
	full.Store(false)
	shipper.journalUnwritten()
	check("not full any more", 0, 0, "[7]")
	shipper.journalUnwritten()
	check("nothing is left", 0, 0, "[]")
}
