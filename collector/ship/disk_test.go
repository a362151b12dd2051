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

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/collector/ship/frame"
	"tidegate/collector/ship/journal"
	"tidegate/pipeline"
)

// fullDisk lets writes fail while it is full, after some of their bytes have been written.
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

// TestFullDisk: lines wait, the wire goes on, and when there is room again everything goes on.
func TestFullDisk(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	var full atomic.Bool
	s := w.start(failpoints{wrapFile: func(f frame.File) frame.File { return fullDisk{f, &full} }})
	full.Store(true)
	all := files(3, 200)
	wire := s.Packets("packets")
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		wire.TryShip(query(i, nil))
	}
	eventually(t, "the wire goes on", func() bool { return s.safePackets() == 300 })
	eventually(t, "the error is counted", func() bool { return s.journal.Errors() > 0 })
	if n := s.counters.delivered[pipeline.Dataset_LOG].Load(); n != 0 {
		t.Errorf("%d lines were produced that the journal does not know", n)
	}
	w.stopBroker()
	for i := range 300 {
		wire.TryShip(query(300+i, nil))
	}
	eventually(t, "the spool's error is counted", func() bool { return s.spool.Errors() > 0 })
	if s.shedReason() != dropDisk {
		t.Errorf("shed for %s", reasonNames[s.shedReason()])
	}
	full.Store(false)
	eventually(t, "the spool takes it", func() bool { return s.safePackets() == 600 })
	w.startBroker()
	if l := w.close(s); l.Delivered != 1200 {
		t.Errorf("ledger %+v", l)
	}
	w.checkExactlyOnce(all...)
	w.checkQueries(600)
}

// TestRealFullDisk is the same on a file system that is really full, from the start.
func TestRealFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Logf("no tmpfs, so the injected error has to do: %v", err)
		return
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	w := newHarness(t)
	w.startBroker()
	w.cfg.StateDir = dir
	if _, err := collector.LoadID(dir); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	s := w.start(failpoints{})
	all := files(2, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the error is counted", func() bool { return s.journal.Errors() > 1 })
	os.Remove(filler)
	if l := w.close(s); l.Delivered != 200 {
		t.Errorf("ledger %+v", l)
	}
	w.checkExactlyOnce(all...)
}

// TestDamagedJournal: whatever happens to its bytes, no line is lost; a torn tail, which is what a kill leaves, doubles none either.
func TestDamagedJournal(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	r := rand.New(rand.NewPCG(7, 7))
	for round := range 6 {
		w := newHarness(t)
		w.startBroker()
		all := files(5, 600)
		w.cfg.BufferBytes = 4 * w.cfg.BatchBytes
		var n atomic.Int64
		s := w.start(failpoints{beforeProduce: func(batchID) { dieAfter(&n, 10) }})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { shipAll(ctx, s, all) })
		eventually(t, "senders died", func() bool { return n.Load() > 12 })
		cancel()
		wg.Wait()
		s.kill()
		name := filepath.Join(w.state, "journal")
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
		s = w.start(failpoints{})
		if s.journal.Unreadable() == 0 {
			t.Error("the damage was not counted")
		}
		if kept, err := os.ReadFile(name + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
			t.Errorf("the damaged journal was not kept: %v", err)
		}
		if err := shipAll(t.Context(), s, all); err != nil {
			t.Fatal(err)
		}
		w.close(s)
		if torn {
			w.checkExactlyOnce(all...)
			continue
		}
		w.checkAtLeastOnce(all...)
	}
}

// checkAtLeastOnce checks that every line of files is there.
func (w *harness) checkAtLeastOnce(files ...*file) {
	w.t.Helper()
	there := map[string]bool{}
	events, _ := w.events()
	for _, e := range events {
		there[e.Log.GetMessage()] = true
	}
	for _, f := range files {
		for i := range f.lines {
			if !there[f.message(i)] {
				w.t.Fatalf("%s is lost", f.message(i))
			}
		}
	}
}

// TestDamagedSpool: what is damaged is counted by dataset, the rest is sent.
func TestDamagedSpool(t *testing.T) {
	w := newHarness(t)
	s := w.start(failpoints{})
	wire := s.Packets("packets")
	for i := range 1000 {
		wire.TryShip(query(i, nil))
	}
	eventually(t, "all is spooled", func() bool { return s.safePackets() == 1000 })
	s.kill()
	names, _ := filepath.Glob(filepath.Join(w.state, "spool", "*.seg"))
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
	w.startBroker()
	s = w.start(failpoints{})
	l := w.close(s)
	if l.Lost != 100 || l.Recovered != 950 || l.Delivered != 850 || s.spool.Unreadable() == 0 {
		t.Errorf("ledger %+v, unreadable %d", l, s.spool.Unreadable())
	}
	if kept, err := os.ReadFile(names[0] + ".unreadable"); err != nil || !bytes.Equal(kept, text) {
		t.Errorf("the damaged segment was not kept: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(w.state, "spool", "*.seg")); len(left) != 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

func TestJournalIsCompacted(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{compactAt: 2000})
	all := files(3, 3000)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is acked", func() bool { return s.Ledger().Delivered == 9000 })
	s.kill()
	j, err := journal.Open(w.state, journal.Options{Log: testLog()})
	if err != nil {
		t.Fatal(err)
	}
	if state := j.State(); j.Unreadable() != 0 || len(state.Files) != 3 || state.Partitions != 4 {
		t.Errorf("unreadable %d, %d files, %d batches, %d partitions", j.Unreadable(), len(state.Files), len(state.Batches), state.Partitions)
	}
}

// FuzzRecovery: whatever a journal says, files resume at a place that makes sense.
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
		s := &Shipper{cfg: Default(), ctx: ctx, journal: j, senders: map[senderKey]*sender{}, files: map[string]*fileProducer{}}
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

// TestKillMinusNine kills a real process, again and again, and reads its metric of acknowledged lines before.
func TestKillMinusNine(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	w := newHarness(t)
	w.startBroker()
	runChildren(t, w)
	w.checkExactlyOnce(files(childFiles, childLines)...)
}
