package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"tidegate/collector"
	"tidegate/pipeline"
)

// fullDisk lets writes fail while it is full, after some of their bytes have been written.
type fullDisk struct {
	spoolFile
	full *atomic.Bool
}

func (f fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if !f.full.Load() {
		return f.spoolFile.WriteAt(b, at)
	}
	n, _ := f.spoolFile.WriteAt(b[:len(b)/2], at)
	return n, unix.ENOSPC
}

// TestFullDisk: lines wait, the wire goes on, and when there is room again everything goes on.
func TestFullDisk(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	var full atomic.Bool
	s := w.start(failpoints{
		journalFile: func(f journalFile) journalFile { return fullDisk{f.(spoolFile), &full} },
		spoolFile:   func(f spoolFile) spoolFile { return fullDisk{f, &full} },
	})
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
	eventually(t, "the error is counted", func() bool { return s.counters.journalErr.Load() > 0 })
	if n := s.counters.delivered[pipeline.Dataset_LOG].Load(); n != 0 {
		t.Errorf("%d lines were produced that the journal does not know", n)
	}
	w.stopBroker()
	for i := range 300 {
		wire.TryShip(query(300+i, nil))
	}
	eventually(t, "the spool's error is counted", func() bool { return s.counters.spoolErr.Load() > 0 })
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
	eventually(t, "the error is counted", func() bool { return s.counters.journalErr.Load() > 1 })
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
		w.cfg.Memory = 4 * int64(w.cfg.BatchBytes)
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
			text = append(text, text[len(journalMagic):len(journalMagic)+5+r.IntN(20)]...)
		} else {
			at := len(journalMagic) + r.IntN(len(text)-len(journalMagic))
			copy(text[at:min(len(text), at+50)], make([]byte, 50))
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		s = w.start(failpoints{})
		if s.counters.damaged.Load() == 0 {
			t.Error("the damage was not counted")
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
	text[spoolHead+100] ^= 1                            // in the first batch
	second := bytes.Index(text[1:], []byte("TGB1")) + 1 // the head of the second
	text[second+10] ^= 1
	text = text[:len(text)-10] // and a torn tail
	if err := os.WriteFile(names[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	w.startBroker()
	s = w.start(failpoints{})
	l := w.close(s)
	if l.Lost != 100 || l.Recovered != 950 || l.Delivered != 850 || s.counters.damaged.Load() == 0 {
		t.Errorf("ledger %+v, damaged %d", l, s.counters.damaged.Load())
	}
}

func TestJournalIsCompacted(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{})
	s.journal.mu.Lock()
	s.journal.limit = 2000
	s.journal.mu.Unlock()
	all := files(3, 3000)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is acked", func() bool { return s.Ledger().Delivered == 9000 })
	s.kill()
	text, err := readJournal(w.state)
	if err != nil {
		t.Fatal(err)
	}
	p := replay(text)
	if p.damaged != 0 || len(p.lanes) != 3 || p.parts != 4 {
		t.Errorf("journal: damaged %d, %d lanes, %d batches, %d partitions", p.damaged, len(p.lanes), len(p.batches), p.parts)
	}
}

func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	check := func(e record) {
		t.Helper()
		b := appendRecord([]byte(journalMagic), &e)
		var got []string
		damaged := readRecords(b, func(g *record) { got = append(got, fmt.Sprintf("%+v", *g)) })
		if want := fmt.Sprintf("%+v", e); damaged != 0 || len(got) != 1 || got[0] != want {
			t.Errorf("%v, damaged %d, want %s", got, damaged, want)
		}
	}
	p := rangeRecord{after: 100, checkpoint: collector.Checkpoint{End: 300, ReadFrom: 200}, count: 7}
	numbered := p
	numbered.lane = 3
	none := []rangeRecord{}
	check(record{kind: recLane, lane: 3, name: "a/b", ranges: nil})
	check(record{kind: recMark, lane: 3, ranges: []rangeRecord{numbered}})
	check(record{kind: recDone, lane: 3, ranges: []rangeRecord{numbered}})
	check(record{kind: recBatch, batch: batchID{1 << 63, 7, 9}, ranges: []rangeRecord{numbered, numbered}})
	check(record{kind: recShrink, batch: batchID{1, 7, 9}, ranges: []rangeRecord{numbered}})
	check(record{kind: recForget, lane: 9, ranges: none[:0:0]})
	check(record{kind: recPartitions, n: 12})
}

func FuzzJournal(f *testing.F) {
	p := []rangeRecord{{lane: 1, after: 0, checkpoint: collector.Checkpoint{End: 100, ReadFrom: 50}, count: 3}}
	b := []byte(journalMagic)
	for _, e := range []record{
		{kind: recPartitions, n: 4},
		{kind: recLane, lane: 1, name: "a"},
		{kind: recMark, lane: 1, ranges: []rangeRecord{{lane: 1, checkpoint: collector.Checkpoint{End: 10, ReadFrom: 10}}}},
		{kind: recBatch, batch: batchID{1, 2, 3}, ranges: p},
		{kind: recShrink, batch: batchID{1, 2, 3}, ranges: p},
		{kind: recLane, lane: 2, name: "a"},
		{kind: recDone, lane: 2, ranges: p},
		{kind: recAck, batch: batchID{1, 2, 3}},
		{kind: recForget, lane: 1},
	} {
		b = appendRecord(b, &e)
		f.Add(bytes.Clone(b), false)
		f.Add(b[len(journalMagic)+recordHead:], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, body bool) {
		if body { // a body with a right CRC, which bytes at random hardly ever are
			r := append(make([]byte, recordHead), b...)
			sealRecord(r, 0)
			b = append([]byte(journalMagic), r...)
			b = append(b, r...)
		}
		past := replay(b)
		s := &Shipper{cfg: Default(), senders: map[senderKey]*sender{}, files: map[string]*fileProducer{}, log: testLog()}
		s.counters.damaged.Store(0)
		s.recoverJournal(past)
		for _, l := range s.files {
			m, _ := l.Resume()
			if m.End < 0 || m.ReadFrom < 0 || m.ReadFrom > m.End || m.End > l.lastEnd {
				t.Errorf("file %q resumes at %v, last %d", l.name, m, l.lastEnd)
			}
		}
		// What is written again says the same.
		again := replay(s.journal.snapshot())
		if again.damaged != 0 || len(again.lanes) != len(s.journal.lanes) {
			t.Errorf("snapshot: damaged %d, %d lanes instead of %d", again.damaged, len(again.lanes), len(s.journal.lanes))
		}
	})
}

func FuzzSpool(f *testing.F) {
	one := func(seq uint64, batch string) []byte {
		h := spoolHeader{stamp: batchID{9, 1, seq}, wire: true, n: len(batch), counts: datasetCounts{1, 2}}
		return append(appendSpoolHead(nil, &h), batch...)
	}
	f.Add(append(one(1, "hello"), one(2, "world")...))
	f.Add(one(1, "hello")[:spoolHead+2])
	f.Add([]byte("TGB1TGB1TGB1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var end int64
		damaged := scanSegment(bytes.NewReader(b), int64(len(b)), func(at int64, g spoolHeader) {
			if at < end+spoolHead || g.whole && at+int64(g.n) > int64(len(b)) {
				t.Fatalf("a batch at %d behind %d of %d bytes", at, end, len(b))
			}
			end = at
			if g.whole {
				end += int64(g.n)
			}
		})
		if damaged < 0 || damaged > int64(len(b)) {
			t.Errorf("%d of %d bytes damaged", damaged, len(b))
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
