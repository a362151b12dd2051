package ship

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/collector/ship/journal"
	"tidegate/pipeline"
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
	eventually(t, "the spool takes it", func() bool { return shipper.safePackets() == 600 })
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
		t.Logf("no tmpfs, so the injected error has to do: %v", err)
		return
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
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		written, err := journal.Open(dir, journal.Options{Log: slog.New(slog.DiscardHandler)})
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
}

// TestKillMinusNine kills a real process repeatedly. Lines that its metric reported as safe must be in Kafka.
func TestKillMinusNine(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	harness := newHarness(t)
	harness.startBroker()
	killChildren(t, harness)
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
	old := map[string]string{ // path in the state folder: a copy in testdata
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
