package ship

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"tidegate/collector"
)

// withoutKafka starts a Shipper that cannot reach Kafka. The number of partitions is in its journal.
func (h *harness) withoutKafka() *Shipper {
	h.t.Helper()
	h.startBroker()
	h.startShipper(failpoints{}).kill()
	h.stopBroker()
	return h.startShipper(failpoints{})
}

// TestSourceGoneMovesLinesThatWait: the lines of a file wait for memory when the file is unlinked. From then
// on they need not wait for Kafka: they go to the spool, and a kill does not lose them.
func TestSourceGoneMovesLinesThatWait(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.BufferBytes = 8 * harness.cfg.BatchBytes
	shipper := harness.withoutKafka()
	all := testFiles(2, 3000)
	all[1].container = all[0].container // both in one partition; the file that stays uses up the budget
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept, results := shipper.File(all[1].name), make(chan error, 2)
	go func() { results <- all[1].shipTo(ctx, kept) }()
	eventually(t, "the budget is used up", kept.(*fileProducer).blocked.Load)
	gone := shipper.File(all[0].name)
	go func() { results <- all[0].shipTo(t.Context(), gone) }()
	eventually(t, "the other waits", gone.(*fileProducer).blocked.Load)
	gone.SourceGone()
	eventually(t, "its lines are safe", func() bool { return safeUpTo(gone) == 300_000 })
	cancel()
	for range 2 {
		if err := <-results; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	shipper.kill()

	harness.startBroker()
	shipper = harness.startShipper(failpoints{})
	if err := all[1].shipTo(t.Context(), shipper.File(all[1].name)); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)
}

// TestLinesInMemoryOfARemovedFileAreSpooled: a file is read to its end and removed while Kafka is
// unavailable. It cannot be read again, so its lines in memory go to the spool.
func TestLinesInMemoryOfARemovedFileAreSpooled(t *testing.T) {
	for _, lines := range []int{30, 8000} { // less than a batch; more batches than the window allows
		harness := newHarness(t)
		shipper := harness.withoutKafka()
		files := testFiles(1, lines)
		producer := shipper.File(files[0].name)
		if err := files[0].shipTo(t.Context(), producer); err != nil {
			t.Fatal(err)
		}
		producer.Close(false)
		eventually(t, "its lines are safe", func() bool { return safeUpTo(producer) == int64(100*lines) })
		shipper.kill()
		harness.startBroker()
		harness.closeShipper(harness.startShipper(failpoints{}))
		harness.checkExactlyOnce(files...)
	}
}

// TestPruneDropsFilesThatAreGone: files that vanished while no collector ran are dropped after the first
// complete listing, and those that exist are found where they were left.
func TestPruneDropsFilesThatAreGone(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	all := testFiles(3, 100)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	shipper = harness.startShipper(failpoints{})
	open := shipper.File(all[0].name)
	shipper.Prune(func(name string) bool { return name == all[1].name })
	for _, file := range all[:2] {
		if checkpoint, ok := shipper.File(file.name).
			Resume(); !ok ||
			checkpoint != (collector.Checkpoint{End: 10_000, ReadFrom: 10_000}) {
			t.Errorf("%s resumes at %v, %v", file.name, checkpoint, ok)
		}
	}
	if err := all[0].shipTo(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)

	shipper = harness.startShipper(failpoints{})
	defer harness.closeShipper(shipper)
	if _, ok := shipper.File(all[2].name).Resume(); ok {
		t.Error("a pruned file still has a checkpoint")
	}
	if checkpoint, ok := shipper.File(all[0].name).Resume(); !ok || checkpoint.End != 10_000 {
		t.Errorf("the file resumes at %v, %v", checkpoint, ok)
	}
}

// TestPruneWaitsForReplays: Prune does not drop a file while a batch of an earlier process waits for its
// lines.
func TestPruneWaitsForReplays(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	all := testFiles(1, 40)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a batch is in the journal",
		func() bool { return shipper.counters.read.total() == 40 && shipper.journal.Bytes() > 60 })
	shipper.kill()

	shipper = harness.startShipper(failpoints{})
	shipper.Prune(func(string) bool { return false })
	if err := all[0].shipTo(t.Context(), shipper.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	if ledger := harness.closeShipper(shipper); ledger.Lost != 0 || ledger.Delivered != 40 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkExactlyOnce(all...)
}
