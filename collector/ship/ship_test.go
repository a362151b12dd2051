package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/ship/journal"
	"tidegate/collector/ship/spool"
	"tidegate/pipeline"
)

func TestDefaultIsValid(t *testing.T) {
	if errs := Default().Check(); errs != nil {
		t.Error(errs)
	}
	if errs := (Config{}).Check(); len(errs) != 6 {
		t.Errorf("of an empty config: %v", errs)
	}
}

func TestEventsArriveUnchanged(t *testing.T) {
	h := newHarness(t)
	h.cfg.SpoolAfter = time.Minute // on a busy machine, a slow broker must not count as an unavailable one
	h.startBroker()
	s := h.startShipper(failpoints{})
	all := testFiles(20, 300)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	packets := s.Packets("packets")
	owner := &pipeline.Container{Id: strings.Repeat("e", 64), Name: "dns", Ip: []string{"10.0.0.9"}}
	for i := range 1000 {
		c := owner
		if i%2 == 1 {
			c = nil
		}
		if !packets.TryShip(dnsEvent(i, c)) {
			t.Fatal("shed")
		}
	}
	l := h.closeShipper(s)
	if l != (Ledger{Read: 7000, Delivered: 7000}) {
		t.Errorf("ledger %+v", l)
	}
	for _, f := range all {
		if got := safeUpTo(s.File(f.name)); got != 30000 {
			t.Errorf("%s is safe up to %d", f.name, got)
		}
	}
	if n := s.safePackets(); n != 1000 {
		t.Errorf("%d packets are safe", n)
	}
	h.checkExactlyOnce(all...)
	h.checkContainers(owner, all)
}

// checkContainers checks the containers that the engine sees, and that the events of a container are in one
// partition.
func (h *harness) checkContainers(owner *pipeline.Container, all []*testFile) {
	home := map[string]int{}
	queries := 0
	for _, m := range h.messages() {
		if m.batch.Host.GetName() != "host-1" || m.batch.Host.GetCluster() != "test" || m.batch.Schema != pipeline.Schema || m.batch.Shipped == 0 {
			h.t.Fatalf("head of a batch: %v", m.batch.Host)
		}
		if !bytes.Equal(m.batch.Collector, h.id[:]) {
			h.t.Fatalf("collector %x", m.batch.Collector)
		}
		for _, e := range m.batch.Events {
			if at, ok := home[e.Container.GetId()]; ok && at != m.partition {
				h.t.Fatalf("container %q is in partitions %d and %d", e.Container.GetId(), at, m.partition)
			}
			home[e.Container.GetId()] = m.partition
			switch {
			case e.Dns != nil:
				queries++
				if e.Container != nil && (e.Container.Name != "dns" || e.Source.Container != e.Container || e.Container.Ip[0] != "10.0.0.9") {
					h.t.Fatalf("container of a query: %v", e.Container)
				}
			case e.Container.GetLabels()[0].Value != "shop" || !strings.HasPrefix(e.Log.Message, "file-"+e.Container.Name[1:]+" "):
				h.t.Fatalf("%q is of container %v", e.Log.Message, e.Container)
			}
		}
	}
	if queries != 1000 || len(home) != len(all)+2 {
		h.t.Errorf("%d queries, %d owners", queries, len(home))
	}
}

// TestKilledBetweenJournalAndProduce: the journal has batches that were never sent.
func TestKilledBetweenJournalAndProduce(t *testing.T) {
	killAt(t, func(died *atomic.Int64) failpoints {
		return failpoints{beforeProduce: func(batchID) {
			if died.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 0)
}

// TestKilledBetweenProduceAndAck: batches are in Kafka, and the collector does not know it.
func TestKilledBetweenProduceAndAck(t *testing.T) {
	killAt(t, func(died *atomic.Int64) failpoints {
		return failpoints{afterProduce: func(batchID) {
			if died.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 4)
}

func killAt(t *testing.T, failpoint func(died *atomic.Int64) failpoints, repeats int) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
	all := testFiles(8, 2000)
	var died atomic.Int64
	s := h.startShipper(failpoint(&died))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	// All senders of all partitions have stopped at the failpoint.
	eventually(t, "every sender died", func() bool { return died.Load() >= 4*3+3 })
	cancel()
	wg.Wait()
	s.kill()

	s = h.startShipper(failpoints{})
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	l := h.closeShipper(s)
	if l.Lost != 0 || l.Buffered != 0 {
		t.Errorf("ledger %+v", l)
	}
	h.checkExactlyOnce(all...)
	if _, n := h.deduplicatedEvents(); n < repeats {
		t.Errorf("%d repeats, the failpoint was not reached", n)
	}
}

// TestAnyKillLosesAndDoublesNothing kills shippers at random points, one after the other, while the broker is
// stopped now and then.
func TestAnyKillLosesAndDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for seed := range tortureSeeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { tortureSeed(t, seed) })
	}
}

func TestFilesWaitAndPacketsAreSpooledWithoutKafka(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
	s := h.startShipper(failpoints{})
	all := testFiles(4, 3000)
	packets := s.Packets("packets")
	for i := range 100 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "the first are safe", func() bool { return s.safePackets() == 100 })
	h.stopBroker()

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := shipAll(t.Context(), s, all); err != nil {
			t.Error(err)
		}
	})
	for i := 100; i < 5000; i++ {
		for !packets.TryShip(dnsEvent(i, nil)) {
			t.Fatalf("query %d was shed: %+v", i, s.Ledger())
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	eventually(t, "packets are safe in the spool", func() bool { return s.safePackets() == 5000 })
	eventually(t, "files wait", func() bool { return s.fileBytes() >= int64(h.cfg.BufferBytes)/2/4 })
	if n := safeUpTo(s.File(all[0].name)); n != 0 {
		t.Errorf("lines are safe up to %d while Kafka is unavailable", n)
	}
	h.startBroker()
	wg.Wait()
	l := h.closeShipper(s)
	if l.Delivered != 17000 || l.Dropped+l.Lost+l.Buffered != 0 || l.Spooled < 4000 || s.spool.Bytes() != 0 {
		t.Errorf("ledger %+v, spool %d", l, s.spool.Bytes())
	}
	h.checkExactlyOnce(all...)
	h.checkQueries(5000)
}

// checkQueries checks that each of n queries is in Kafka once.
func (h *harness) checkQueries(n int) {
	h.t.Helper()
	times := map[string]int{}
	events, _ := h.deduplicatedEvents()
	for _, e := range events {
		if e.Dns != nil {
			times[e.Dns.QuestionName]++
		}
	}
	for i := range n {
		if k := fmt.Sprintf("q%d.example", i); times[k] != 1 {
			h.t.Fatalf("%s is there %d times (%d of %d in all)", k, times[k], len(times), n)
		}
	}
}

// TestSpoolSurvivesAKill: packet events that were reported as safe are delivered after a kill.
func TestSpoolSurvivesAKill(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.startShipper(failpoints{}).kill() // learns how many partitions there are
	h.stopBroker()
	s := h.startShipper(failpoints{})
	packets := s.Packets("packets")
	for i := range 9000 {
		for !packets.TryShip(dnsEvent(i, &pipeline.Container{Id: fmt.Sprintf("%064d", i%7)})) {
			t.Fatal("shed")
		}
	}
	eventually(t, "all is spooled", func() bool { return s.safePackets() == 9000 })
	s.kill()

	h.startBroker()
	s = h.startShipper(failpoints{})
	l := h.closeShipper(s)
	if l.Recovered != 9000 || l.Delivered != 9000 || l.Read != 0 {
		t.Errorf("ledger %+v", l)
	}
	h.checkQueries(9000)
	if names, _ := filepath.Glob(filepath.Join(h.state, "spool", "*")); len(names) != 0 {
		t.Errorf("left in the spool: %v", names)
	}
}

// TestStopWithoutKafka: a clean stop leaves packet events in the spool and lines in their files.
func TestStopWithoutKafka(t *testing.T) {
	h := newHarness(t)
	h.cfg.SpoolAfter = time.Hour // nothing is spooled before the stop
	s := h.startShipper(failpoints{})
	packets := s.Packets("packets")
	all := testFiles(3, 500)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		packets.TryShip(dnsEvent(i, nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if l := s.Ledger(); !l.IsBalanced() || l.Buffered != 2000 || l.Spooled != 500 {
		t.Errorf("ledger %+v", l)
	}

	h.startBroker()
	s = h.startShipper(failpoints{})
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	if l := h.closeShipper(s); l.Delivered != 2000 || l.Recovered != 500 {
		t.Errorf("ledger %+v", l)
	}
	h.checkExactlyOnce(all...)
	h.checkQueries(500)
}

// TestMemoryIsBoundedWithoutKafka: files wait; packets fill the spool and are then shed, with a reason.
func TestMemoryIsBoundedWithoutKafka(t *testing.T) {
	h := newHarness(t)
	h.cfg.BatchBytes = 32 << 10
	h.cfg.BufferBytes = 1 << 20
	h.cfg.SpoolBytes = 2 * maxBatchBytes
	s := h.startShipper(failpoints{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, testFiles(4, 100_000)) })
	packets := s.Packets("packets")
	for i := range 200_000 {
		packets.TryShip(dnsEvent(i, nil))
		if used := s.packetBudget.used.Load(); used > int64(h.cfg.BufferBytes)/2+int64(h.cfg.BatchBytes) {
			t.Fatalf("packets hold %d bytes", used)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	session := pipeline.EventFromVTPool()
	session.Dataset = pipeline.Dataset_SESSION
	if s.spool.Condition() != spool.Full || s.spool.Bytes() > int64(h.cfg.SpoolBytes) {
		t.Errorf("spool: state %d, %d bytes", s.spool.Condition(), s.spool.Bytes())
	}
	if !packets.TryShip(session) {
		t.Error("a session was shed although there was memory for it")
	}
	if used := s.fileBytes(); used > int64(h.cfg.BufferBytes)/2+int64(h.cfg.BatchBytes) {
		t.Errorf("files hold %d bytes", used)
	}
	cancel()
	wg.Wait()
	l := h.closeShipper(s)
	full := s.counters.discarded[dropSpoolFull][pipeline.Dataset_DNS].Load()
	if l.Dropped == 0 || full == 0 || l.Lost != 0 {
		t.Errorf("ledger %+v, spool full %d", l, full)
	}
	if s.safePackets() > 200_001 {
		t.Error("more is safe than was shipped")
	}
}

func TestShedsInTheDeclaredOrder(t *testing.T) {
	check := func(d pipeline.Dataset, partial bool, percent int64, want bool) {
		t.Helper()
		if got := shouldShed(&pipeline.Event{Dataset: d, Partial: partial}, percent, 100); got != want {
			t.Errorf("%v partial %v at %d %%: %v", d, partial, percent, got)
		}
	}
	check(pipeline.Dataset_FILE, false, 49, false)
	check(pipeline.Dataset_FILE, false, 50, true)
	check(pipeline.Dataset_HTTP, true, 50, true)
	check(pipeline.Dataset_HTTP, false, 74, false)
	check(pipeline.Dataset_HTTP, false, 75, true)
	check(pipeline.Dataset_SESSION, true, 89, false)
	check(pipeline.Dataset_SESSION, false, 90, true)
	check(pipeline.Dataset_CONTAINER, false, 99, false)
	check(pipeline.Dataset_CONTAINER, false, 100, true)
	check(pipeline.Dataset(99), false, 50, true)
}

// TestSealedLinesGoToTheSpool: a file that is unlinked cannot be read again, so its lines do not wait for
// Kafka.
func TestLinesOfRemovedFilesGoToTheSpool(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.startShipper(failpoints{}).kill()
	h.stopBroker()
	s := h.startShipper(failpoints{})
	f := testFiles(2, 4000)
	f[1].lines = 700
	kept := s.File(f[1].name) // its lines share batches with those of the other
	kept.(*fileProducer).partition = (*s.partitions.Load())[partitionFor(f[0].container.Id, 4)]
	gone := s.File(f[0].name)
	var wg sync.WaitGroup
	wg.Go(func() { f[1].shipTo(t.Context(), kept) })
	for i := range f[0].lines {
		if i == 1500 {
			gone.SourceGone()
		}
		at := int64(i+1) * 100
		if err := gone.Ship(t.Context(), f[0].event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	gone.Close(false)
	wg.Wait()
	eventually(t, "the sealed lines are safe", func() bool { return safeUpTo(gone) == 400_000 })
	s.kill()

	h.startBroker()
	s = h.startShipper(failpoints{})
	if _, ok := s.File(f[0].name).Resume(); ok {
		t.Error("a file that was closed for good is remembered")
	}
	if err := f[1].shipTo(t.Context(), s.File(f[1].name)); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(f...)
}

// TestFileThatDoesNotComeBack: the lines of a file that is not read again are counted as lost, and the other
// lines of their batches are sent.
func TestFileThatDoesNotComeBack(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	all := testFiles(6, 400)
	h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
	s := h.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	eventually(t, "batches are in the journal", func() bool { return s.journal.Bytes() > 1000 })
	time.Sleep(50 * time.Millisecond)
	cancel()
	wg.Wait()
	s.kill()

	h.cfg.ResumeTimeout = 200 * time.Millisecond
	s = h.startShipper(failpoints{})
	missing := uint64(0)
	state := s.journal.State()
	for _, b := range state.Batches {
		for _, r := range b.Ranges {
			if state.Files[slices.IndexFunc(state.Files, func(f journal.File) bool { return f.ID == r.File })].Name == all[0].name {
				missing += uint64(r.Events)
			}
		}
	}
	if missing == 0 {
		t.Fatal("nothing of the file is in the journal")
	}
	if err := shipAll(t.Context(), s, all[1:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is given up", func() bool { return s.Ledger().Lost == missing })
	eventually(t, "the others are safe", func() bool {
		for _, f := range all[1:] {
			if safeUpTo(s.File(f.name)) != 40000 {
				return false
			}
		}
		return true
	})
	// The file comes back after all, and all its lines are sent.
	if err := all[0].shipTo(t.Context(), s.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(all...)
}

func TestClosedFileIsDroppedUnlessKept(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{})
	all := testFiles(2, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	s.File(all[0].name).Close(false)
	s.File(all[1].name).Close(true)
	h.closeShipper(s)
	s = h.startShipper(failpoints{})
	if m, ok := s.File(all[0].name).Resume(); ok {
		t.Errorf("the first is at %v", m)
	}
	if m, ok := s.File(all[1].name).Resume(); !ok || m.End != 10000 {
		t.Errorf("the second is at %v, %v", m, ok)
	}
	// The first name now means a new file, which begins at 0.
	if err := all[0].shipTo(t.Context(), s.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	if l := h.closeShipper(s); l.Delivered != 100 {
		t.Errorf("ledger %+v", l)
	}
}

func TestRepeatedAndOversizedEventsAreCounted(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{})
	l := s.File("f")
	f := testFiles(1, 3)[0]
	ship := func(i int, at int64) {
		t.Helper()
		if err := l.Ship(t.Context(), f.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	ship(0, 100)
	ship(0, 100)
	ship(0, 50)
	big := f.event(1)
	big.Log.Message = strings.Repeat("x", int(h.cfg.BatchBytes))
	if err := l.Ship(t.Context(), big, collector.Checkpoint{End: 200, ReadFrom: 200}); err != nil {
		t.Fatal(err)
	}
	ship(2, 300)
	ledger := h.closeShipper(s)
	if ledger != (Ledger{Read: 3, Delivered: 2, Dropped: 1, Reread: 2}) {
		t.Errorf("ledger %+v", ledger)
	}
	if n := safeUpTo(l); n != 300 {
		t.Errorf("safe up to %d", n)
	}
	if err := l.Ship(t.Context(), f.event(2), collector.Checkpoint{End: 400}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if s.Packets("packets").TryShip(dnsEvent(1, nil)) {
		t.Error("TryShip after close")
	}
}

// TestContainerThatSaysTooMuch: a batch does not become too large for Kafka because somebody has a megabyte
// of labels.
func TestContainerWithTooMuchMetadata(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	s := h.startShipper(failpoints{})
	l := s.Packets("packets")
	for i := range 100 {
		c := &pipeline.Container{Id: fmt.Sprintf("%064d", i), Name: "big", Labels: []*pipeline.Label{{Key: "k", Value: strings.Repeat("v", 1<<20)}}}
		if i%2 == 0 {
			c.Labels[0].Value = strings.Repeat("v", 15<<10)
		}
		if !l.TryShip(dnsEvent(i, c)) {
			t.Fatal("shed")
		}
	}
	h.closeShipper(s)
	h.checkQueries(100)
	for _, m := range h.messages() {
		if m.bytes > int(h.cfg.BatchBytes)+1024 {
			t.Errorf("a batch of %d bytes", m.bytes)
		}
		for _, e := range m.batch.Events {
			if e.Container.GetName() != "big" || e.Source.Container != e.Container {
				t.Fatalf("container %v", e.Container.GetName())
			}
		}
	}
}

func TestSecondCollectorIsRefused(t *testing.T) {
	h := newHarness(t)
	s := h.startShipper(failpoints{})
	defer s.kill()
	_, err := New(h.cfg, h.kcfg, h.id, testLog(), nil)
	if err == nil || !strings.Contains(err.Error(), "in use by another collector (process "+fmt.Sprint(os.Getpid())+")") {
		t.Errorf("error %v", err)
	}
}

// TestPartitionsChange: batches of an earlier process keep their partition; new events are spread over all.
func TestPartitionsChange(t *testing.T) {
	h := newHarness(t)
	h.startBroker()
	h.kcfg.Partitions = 2
	all := testFiles(12, 300)
	s := h.startShipper(failpoints{afterProduce: func(batchID) { runtime.Goexit() }})
	h.cfg.BufferBytes = 4 * h.cfg.BatchBytes
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	eventually(t, "batches are in the journal", func() bool { return s.journal.Bytes() > 2000 })
	cancel()
	wg.Wait()
	s.kill()
	h.morePartitions(5)

	s = h.startShipper(failpoints{})
	if n := len(*s.partitions.Load()); n != 5 {
		t.Fatalf("%d partitions", n)
	}
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	h.closeShipper(s)
	h.checkExactlyOnce(all...)
}
