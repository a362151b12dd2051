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

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if !f.full.Load() {
		return f.File.WriteAt(b, at)
	}
	n, _ := f.File.WriteAt(b[:len(b)/2], at)
	return n, unix.ENOSPC
}

// TestFullDisk: lines wait while the disk is full, packets are delivered, and afterwards everything is
// delivered.
func TestFullDisk(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	var full atomic.Bool
	s := h.startShipper(failpoints{wrapFile: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true)
	all := testFiles(3, 200)
	packets := s.Packets("packets")
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "packets are delivered", func() bool { return s.safePackets() == 300 })
	eventually(t, "the error is counted", func() bool { return s.journal.Errors() > 0 })
	if n := s.counters.delivered[pipeline.Dataset_LOG].Load(); n != 0 {
		t.Errorf("%d lines were produced that the journal does not know", n)
	}
	h.stopBroker()
	for i := range 300 {
		packets.TryShip(dnsEvent(300+i, nil))
	}
	eventually(t, "the spool's error is counted", func() bool { return s.spool.Errors() > 0 })
	eventually(t, "packets would be shed because of the disk", func() bool { return s.shedReason() == dropDisk })
	full.Store(false)
	eventually(t, "the spool takes it", func() bool { return s.safePackets() == 600 })
	h.startBroker()
	if l := h.closeShipper(s); l.Delivered != 1200 {
		t.Errorf("ledger %+v", l)
	}
	h.checkExactlyOnce(all...)
	h.checkQueries(600)
}

// TestRealFullDisk starts on a file system that is full.
func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("no tmpfs, so the injected error has to do: %v", err)
		return
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	h := newHarness(t)
	h.startBroker()
	h.cfg.StateDir = dir
	if _, err := collector.LoadID(dir); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	s := h.startShipper(failpoints{})
	all := testFiles(2, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the error is counted", func() bool { return s.journal.Errors() > 1 })
	os.Remove(filler)
	if l := h.closeShipper(s); l.Delivered != 200 {
		t.Errorf("ledger %+v", l)
	}
	h.checkExactlyOnce(all...)
}

// TestDamagedJournal: no line is lost, whatever is damaged. A torn tail, which a killed process leaves, does
// not duplicate lines either.
func TestDamagedJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 6 {
		h := newHarness(t)
		h.startBroker()
		all := testFiles(5, 600)
		h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
		var n atomic.Int64
		s := h.startShipper(failpoints{beforeProduce: func(batchID) { exitAfter(&n, 10) }})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { shipAll(ctx, s, all) })
		eventually(t, "senders died", func() bool { return n.Load() > 12 })
		cancel()
		wg.Wait()
		s.kill()
		name := filepath.Join(h.state, "journal")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		torn := round < 3
		if torn {
			text = append(text, text[frame.FileHeaderSize:frame.FileHeaderSize+5+r.IntN(15)]...)
		} else {
			at := frame.FileHeaderSize + r.IntN(len(text)-frame.FileHeaderSize)
			copy(text[at:min(len(text), at+50)], make([]byte, 50))
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s = h.startShipper(failpoints{})
		if s.journal.Unreadable() == 0 {
			t.Error("the damage was not counted")
		}
		if kept, err := os.ReadFile(name + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("the damaged journal was not kept: %v", err)
		}
		if err := shipAll(t.Context(), s, all); err != nil {
			t.Fatal(err)
		}
		h.closeShipper(s)
		if torn {
			h.checkExactlyOnce(all...)
			continue
		}
		h.checkAtLeastOnce(all...)
	}
}

// checkAtLeastOnce checks that every line of files is in Kafka.
func (h *harness) checkAtLeastOnce(files ...*testFile) {
	h.t.Helper()
	there := map[string]bool{}
	events, _ := h.deduplicatedEvents()
	for _, e := range events {
		there[e.Log.GetMessage()] = true
	}
	for _, f := range files {
		for i := range f.lines {
			if !there[f.message(i)] {
				h.t.Fatalf("%s is lost", f.message(i))
			}
		}
	}
}

// TestDamagedSpool: damaged batches are counted by dataset and kept on disk, the others are sent.
func TestDamagedSpool(t *testing.T) {
	h := newHarness(t)
	h.cfg.Linger = time.Minute // every batch has 50 events, also on a busy machine
	s := h.startShipper(failpoints{})
	packets := s.Packets("packets")
	for i := range 1000 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "all is spooled", func() bool { return s.safePackets() == 1000 })
	s.kill()
	names, _ := filepath.Glob(filepath.Join(h.state, "spool", "*.seg"))
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
	h.startBroker()
	s = h.startShipper(failpoints{})
	l := h.closeShipper(s)
	if l.Lost != 100 || l.Recovered != 950 || l.Delivered != 850 || s.spool.Unreadable() == 0 {
		t.Errorf("ledger %+v, unreadable %d", l, s.spool.Unreadable())
	}
	if kept, err := os.ReadFile(names[0] + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("the damaged segment was not kept: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(h.state, "spool", "*.seg")); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

func TestJournalIsCompacted(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{compactAt: 2000})
	all := testFiles(3, 3000)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "everything is delivered", func() bool { return s.Ledger().Delivered == 9000 })
	s.kill()
	j, err := journal.Open(h.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if state := j.State(); j.Unreadable() != 0 || len(state.Files) != 3 || state.Partitions != 4 {
		t.Errorf("unreadable %d, %d files, %d batches, %d partitions", j.Unreadable(), len(state.Files), len(state.Batches), state.Partitions)
	}
}

// FuzzRecovery checks that files resume at a valid checkpoint, whatever a journal says.
func FuzzRecovery(f *testing.F) {
	dir := f.TempDir()
	j, err := journal.Open(dir, journal.Options{Log: testLog()})
	if err != nil {
		f.Fatal(err)
	}
	if err := j.Start(); err != nil {
		f.Fatal(err)
	}
	file := j.AddFile("a")
	for i := range int64(5) {
		id := batchID{Epoch: 1, Partition: 2, Sequence: uint64(i)}
		end := collector.Checkpoint{End: 100 * (i + 1), ReadFrom: 100*i + 50}
		if err := j.Append(journal.Batch{ID: id, Ranges: []journal.Range{{File: file, After: 100 * i, End: end, Events: 3}}}); err != nil {
			f.Fatal(err)
		}
		if i%2 == 0 {
			j.Ack(id)
		}
	}
	j.Close(false)
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
		j, err := journal.Open(dir, journal.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is produced
		s := &Shipper{
			cfg: Default(), lifecycle: lifecycle{ctx: ctx}, journal: j, senders: map[senderKey]*sender{},
			files: map[string]*fileProducer{},
		}
		s.recoverJournal(j.State())
		for _, l := range s.files {
			m, _ := l.Resume()
			if m.End < 0 || m.ReadFrom < 0 || m.ReadFrom > m.End || m.End > l.lastEnd {
				t.Errorf("file %q resumes at %v, last %d", l.name, m, l.lastEnd)
			}
		}
		for _, f := range s.filesToReplay {
			f.abandonReplay()
		}
	})
}

// TestKillMinusNine kills a real process repeatedly. Lines that its metric reported as safe must be in Kafka.
func TestKillMinusNine(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	h := newHarness(t)
	h.startBroker()
	killChildren(t, h)
	h.checkExactlyOnce(testFiles(childFiles, childLines)...)
}

// TestUpgrade: journal and spool of commit 1b86dc3, which had no version and ten datasets, are kept, counted
// and do not stop the collector.
func TestUpgrade(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	if err := os.Mkdir(filepath.Join(h.state, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	old := map[string]string{ // where it lies in the state folder: a copy in testdata
		filepath.Join(h.state, "journal"):               "journal/testdata/journal.v1",
		filepath.Join(h.state, "spool", "00000001.seg"): "spool/testdata/segment.v1",
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

	s := h.startShipper(failpoints{})
	if s.journal.Unreadable() == 0 || s.spool.Unreadable() == 0 {
		t.Errorf("unreadable: journal %d, spool %d", s.journal.Unreadable(), s.spool.Unreadable())
	}
	all := testFiles(2, 30)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(all...)
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
