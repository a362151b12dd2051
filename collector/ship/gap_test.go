package ship

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"tidegate/collector"
)

// withoutKafka starts a Shipper that knows the partitions of the topic and cannot reach Kafka.
func (h *harness) withoutKafka() *Shipper {
	h.t.Helper()
	h.startBroker()
	h.startShipper(failpoints{}).kill()
	h.stopBroker()
	return h.startShipper(failpoints{})
}

// TestSealMovesWhoWaits: lines wait among the logs when their file is unlinked. They need not wait for Kafka,
// then: the spool takes them, and a kill does not lose them.
func TestSourceGoneMovesLinesThatWait(t *testing.T) {
	h := newHarness(t)
	h.cfg.BufferBytes = 8 * h.cfg.BatchBytes
	s := h.withoutKafka()
	all := testFiles(2, 3000)
	all[1].container = all[0].container // both in one partition; the file that stays uses up the budget
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stays, poured := s.File(all[1].name), make(chan error, 2)
	go func() { poured <- all[1].shipTo(ctx, stays) }()
	eventually(t, "the budget is used up", stays.(*fileProducer).blocked.Load)
	gone := s.File(all[0].name)
	go func() { poured <- all[0].shipTo(t.Context(), gone) }()
	eventually(t, "the other waits", gone.(*fileProducer).blocked.Load)
	gone.SourceGone()
	eventually(t, "its lines are safe", func() bool { return safeUpTo(gone) == 300_000 })
	cancel()
	for range 2 {
		if err := <-poured; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	s.kill()

	h.startBroker()
	s = h.startShipper(failpoints{})
	if err := all[1].shipTo(t.Context(), s.File(all[1].name)); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(all...)
}

// TestLinesInMemoryOfARemovedFileAreSpooled: a file is read to its end and removed while Kafka is
// unavailable. It cannot be read again, so its lines in memory go to the spool.
func TestLinesInMemoryOfARemovedFileAreSpooled(t *testing.T) {
	for _, lines := range []int{30, 8000} { // less than a batch; more batches than the window allows
		h := newHarness(t)
		s := h.withoutKafka()
		f := testFiles(1, lines)
		l := s.File(f[0].name)
		if err := f[0].shipTo(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		l.Close(false)
		eventually(t, "its lines are safe", func() bool { return safeUpTo(l) == int64(100*lines) })
		s.kill()
		h.startBroker()
		h.closeShipper(h.startShipper(failpoints{}))
		h.checkExactlyOnce(f...)
	}
}

// TestPruneDropsFilesThatAreGone: files that vanished while no collector ran are dropped after the first
// complete listing, and those that exist are found where they were left.
func TestPruneDropsFilesThatAreGone(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{})
	all := testFiles(3, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	s = h.startShipper(failpoints{})
	open := s.File(all[0].name)
	s.Prune(func(name string) bool { return name == all[1].name })
	for _, f := range all[:2] {
		if c, ok := s.File(f.name).Resume(); !ok || c != (collector.Checkpoint{End: 10_000, ReadFrom: 10_000}) {
			t.Errorf("%s resumes at %v, %v", f.name, c, ok)
		}
	}
	if err := all[0].shipTo(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(all...)

	s = h.startShipper(failpoints{})
	defer h.closeShipper(s)
	if _, ok := s.File(all[2].name).Resume(); ok {
		t.Error("the journal remembers what was pruned")
	}
	if c, ok := s.File(all[0].name).Resume(); !ok || c.End != 10_000 {
		t.Errorf("the file resumes at %v, %v", c, ok)
	}
}

// TestPruneWaitsForReplays: a file that a batch of an earlier process waits for keeps its place until the
// replay has expired, whatever a listing says.
func TestPruneWaitsForReplays(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	all := testFiles(1, 40)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a batch is in the journal", func() bool { return s.counters.read.total() == 40 && s.journal.Bytes() > 60 })
	s.kill()

	s = h.startShipper(failpoints{})
	s.Prune(func(string) bool { return false })
	if err := all[0].shipTo(t.Context(), s.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	if l := h.closeShipper(s); l.Lost != 0 || l.Delivered != 40 {
		t.Errorf("ledger %+v", l)
	}
	h.checkExactlyOnce(all...)
}
