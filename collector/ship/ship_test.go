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

func TestEverythingArrivesAsItWas(t *testing.T) {
	w := newHarness(t)
	w.cfg.SpoolAfter = time.Minute // a machine that is busy must not count as a broker that is away
	w.startBroker()
	s := w.start(failpoints{})
	all := files(20, 300)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	wire := s.Packets("packets")
	owner := &pipeline.Container{Id: strings.Repeat("e", 64), Name: "dns", Ip: []string{"10.0.0.9"}}
	for i := range 1000 {
		c := owner
		if i%2 == 1 {
			c = nil
		}
		if !wire.TryShip(query(i, c)) {
			t.Fatal("shed")
		}
	}
	l := w.close(s)
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
	w.checkExactlyOnce(all...)
	w.containersAreRight(owner, all)
}

// containersAreRight checks what the engine sees after Resolve, and that a container's events are in one partition.
func (w *harness) containersAreRight(owner *pipeline.Container, all []*file) {
	home := map[string]int{}
	queries := 0
	for _, m := range w.messages() {
		if m.batch.Host.GetName() != "host-1" || m.batch.Host.GetCluster() != "test" || m.batch.Schema != pipeline.Schema || m.batch.Shipped == 0 {
			w.t.Fatalf("head of a batch: %v", m.batch.Host)
		}
		if !bytes.Equal(m.batch.Collector, w.id[:]) {
			w.t.Fatalf("collector %x", m.batch.Collector)
		}
		for _, e := range m.batch.Events {
			if at, ok := home[e.Container.GetId()]; ok && at != m.partition {
				w.t.Fatalf("container %q is in partitions %d and %d", e.Container.GetId(), at, m.partition)
			}
			home[e.Container.GetId()] = m.partition
			switch {
			case e.Dns != nil:
				queries++
				if e.Container != nil && (e.Container.Name != "dns" || e.Source.Container != e.Container || e.Container.Ip[0] != "10.0.0.9") {
					w.t.Fatalf("container of a query: %v", e.Container)
				}
			case e.Container.GetLabels()[0].Value != "shop" || !strings.HasPrefix(e.Log.Message, "file-"+e.Container.Name[1:]+" "):
				w.t.Fatalf("%q is of container %v", e.Log.Message, e.Container)
			}
		}
	}
	if queries != 1000 || len(home) != len(all)+2 {
		w.t.Errorf("%d queries, %d owners", queries, len(home))
	}
}

// TestKilledBetweenJournalAndProduce: the batches are known and were never sent.
func TestKilledBetweenJournalAndProduce(t *testing.T) {
	killAt(t, func(died *atomic.Int64) failpoints {
		return failpoints{beforeProduce: func(batchID) {
			if died.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 0)
}

// TestKilledBetweenProduceAndAck: the batches are in Kafka and nobody here knows it.
func TestKilledBetweenProduceAndAck(t *testing.T) {
	killAt(t, func(died *atomic.Int64) failpoints {
		return failpoints{afterProduce: func(batchID) {
			if died.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 4)
}

func killAt(t *testing.T, seam func(died *atomic.Int64) failpoints, repeats int) {
	w := newHarness(t)
	w.startBroker()
	w.cfg.BufferBytes = 4 * w.cfg.BatchBytes
	all := files(8, 2000)
	var died atomic.Int64
	s := w.start(seam(&died))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	// All senders of all partitions stand still at the seam.
	eventually(t, "every sender died", func() bool { return died.Load() >= 4*3+3 })
	cancel()
	wg.Wait()
	s.kill()

	s = w.start(failpoints{})
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	l := w.close(s)
	if l.Lost != 0 || l.Buffered != 0 {
		t.Errorf("ledger %+v", l)
	}
	w.checkExactlyOnce(all...)
	if _, n := w.events(); n < repeats {
		t.Errorf("%d repeats, the seam was not tried", n)
	}
}

// TestAnyKillLosesAndDoublesNothing kills at random places, life after life, with the broker going away now and then.
func TestAnyKillLosesAndDoublesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	for seed := range tortures() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { torture(t, seed) })
	}
}

func TestBrokerAwayLogsWaitAndWireIsSpooled(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	w.cfg.BufferBytes = 4 * w.cfg.BatchBytes
	s := w.start(failpoints{})
	all := files(4, 3000)
	wire := s.Packets("packets")
	for i := range 100 {
		wire.TryShip(query(i, nil))
	}
	eventually(t, "the first are acked", func() bool { return s.safePackets() == 100 })
	w.stopBroker()

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := shipAll(t.Context(), s, all); err != nil {
			t.Error(err)
		}
	})
	for i := 100; i < 5000; i++ {
		for !wire.TryShip(query(i, nil)) {
			t.Fatalf("query %d was shed: %+v", i, s.Ledger())
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	eventually(t, "the wire is safe in the spool", func() bool { return s.safePackets() == 5000 })
	eventually(t, "files wait", func() bool { return s.fileBytes() >= int64(w.cfg.BufferBytes)/2/4 })
	if n := safeUpTo(s.File(all[0].name)); n != 0 {
		t.Errorf("a line is acked up to %d while Kafka is away", n)
	}
	w.startBroker()
	wg.Wait()
	l := w.close(s)
	if l.Delivered != 17000 || l.Dropped+l.Lost+l.Buffered != 0 || l.Spooled < 4000 || s.spool.Bytes() != 0 {
		t.Errorf("ledger %+v, spool %d", l, s.spool.Bytes())
	}
	w.checkExactlyOnce(all...)
	w.checkQueries(5000)
}

// checkQueries checks that n queries are there once each.
func (w *harness) checkQueries(n int) {
	w.t.Helper()
	times := map[string]int{}
	events, _ := w.events()
	for _, e := range events {
		if e.Dns != nil {
			times[e.Dns.QuestionName]++
		}
	}
	for i := range n {
		if k := fmt.Sprintf("q%d.example", i); times[k] != 1 {
			w.t.Fatalf("%s is there %d times (%d of %d in all)", k, times[k], len(times), n)
		}
	}
}

// TestSpoolSurvivesAKill: what the wire lane was told is safe is there after a kill, in its order.
func TestSpoolSurvivesAKill(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	w.start(failpoints{}).kill() // learns how many partitions there are
	w.stopBroker()
	s := w.start(failpoints{})
	wire := s.Packets("packets")
	for i := range 9000 {
		for !wire.TryShip(query(i, &pipeline.Container{Id: fmt.Sprintf("%064d", i%7)})) {
			t.Fatal("shed")
		}
	}
	eventually(t, "all is spooled", func() bool { return s.safePackets() == 9000 })
	s.kill()

	w.startBroker()
	s = w.start(failpoints{})
	l := w.close(s)
	if l.Recovered != 9000 || l.Delivered != 9000 || l.Read != 0 {
		t.Errorf("ledger %+v", l)
	}
	w.checkQueries(9000)
	if names, _ := filepath.Glob(filepath.Join(w.state, "spool", "*")); len(names) != 0 {
		t.Errorf("left in the spool: %v", names)
	}
}

// TestStopWithBrokerAway: a clean stop leaves events of the wire in the spool and lines in their files.
func TestStopWithBrokerAway(t *testing.T) {
	w := newHarness(t)
	w.cfg.SpoolAfter = time.Hour // nothing is spooled before the stop
	s := w.start(failpoints{})
	wire := s.Packets("packets")
	all := files(3, 500)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		wire.TryShip(query(i, nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if l := s.Ledger(); !l.IsBalanced() || l.Buffered != 2000 || l.Spooled != 500 {
		t.Errorf("ledger %+v", l)
	}

	w.startBroker()
	s = w.start(failpoints{})
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	if l := w.close(s); l.Delivered != 2000 || l.Recovered != 500 {
		t.Errorf("ledger %+v", l)
	}
	w.checkExactlyOnce(all...)
	w.checkQueries(500)
}

// TestMemoryIsBoundedWhenTheBrokerNeverComes: files wait, the wire fills the spool and is then shed, each with its reason.
func TestMemoryIsBoundedWhenTheBrokerNeverComes(t *testing.T) {
	w := newHarness(t)
	w.cfg.BatchBytes = 32 << 10
	w.cfg.BufferBytes = 1 << 20
	w.cfg.SpoolBytes = 2 * maxBatchBytes
	s := w.start(failpoints{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, files(4, 100_000)) })
	wire := s.Packets("packets")
	for i := range 200_000 {
		wire.TryShip(query(i, nil))
		if used := s.packetBudget.used.Load(); used > int64(w.cfg.BufferBytes)/2+int64(w.cfg.BatchBytes) {
			t.Fatalf("the wire holds %d bytes", used)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	session := pipeline.EventFromVTPool()
	session.Dataset = pipeline.Dataset_SESSION
	if s.spool.Condition() != spool.Full || s.spool.Bytes() > int64(w.cfg.SpoolBytes) {
		t.Errorf("spool: state %d, %d bytes", s.spool.Condition(), s.spool.Bytes())
	}
	if !wire.TryShip(session) {
		t.Error("a session was shed although there was room for it")
	}
	if used := s.fileBytes(); used > int64(w.cfg.BufferBytes)/2+int64(w.cfg.BatchBytes) {
		t.Errorf("files hold %d bytes", used)
	}
	cancel()
	wg.Wait()
	l := w.close(s)
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
		if got := sheds(&pipeline.Event{Dataset: d, Partial: partial}, percent, 100); got != want {
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

// TestSealedLinesGoToTheSpool: a file that is unlinked cannot be read again, so its lines do not wait for Kafka.
func TestSealedLinesGoToTheSpool(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	w.start(failpoints{}).kill()
	w.stopBroker()
	s := w.start(failpoints{})
	f := files(2, 4000)
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

	w.startBroker()
	s = w.start(failpoints{})
	if _, ok := s.File(f[0].name).Resume(); ok {
		t.Error("a lane that is over was remembered")
	}
	if err := f[1].shipTo(t.Context(), s.File(f[1].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.checkExactlyOnce(f...)
}

// TestFileThatDoesNotComeBack: its lines are counted as lost, and the lines that shared their batches are sent.
func TestFileThatDoesNotComeBack(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	all := files(6, 400)
	w.cfg.BufferBytes = 4 * w.cfg.BatchBytes
	s := w.start(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	eventually(t, "batches are in the journal", func() bool { return s.journal.Bytes() > 1000 })
	time.Sleep(50 * time.Millisecond)
	cancel()
	wg.Wait()
	s.kill()

	w.cfg.ResumeTimeout = 200 * time.Millisecond
	s = w.start(failpoints{})
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
	// It comes back after all: late, but whole.
	if err := all[0].shipTo(t.Context(), s.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.checkExactlyOnce(all...)
}

func TestClosedLaneIsForgottenUnlessKept(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{})
	all := files(2, 100)
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	s.File(all[0].name).Close(false)
	s.File(all[1].name).Close(true)
	w.close(s)
	s = w.start(failpoints{})
	if m, ok := s.File(all[0].name).Resume(); ok {
		t.Errorf("the first is at %v", m)
	}
	if m, ok := s.File(all[1].name).Resume(); !ok || m.End != 10000 {
		t.Errorf("the second is at %v, %v", m, ok)
	}
	// The first name means a new file now, which begins at 0.
	if err := all[0].shipTo(t.Context(), s.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	if l := w.close(s); l.Delivered != 100 {
		t.Errorf("ledger %+v", l)
	}
}

func TestRepeatedAndOversizedEventsAreCounted(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{})
	l := s.File("f")
	f := files(1, 3)[0]
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
	big.Log.Message = strings.Repeat("x", int(w.cfg.BatchBytes))
	if err := l.Ship(t.Context(), big, collector.Checkpoint{End: 200, ReadFrom: 200}); err != nil {
		t.Fatal(err)
	}
	ship(2, 300)
	ledger := w.close(s)
	if ledger != (Ledger{Read: 3, Delivered: 2, Dropped: 1, Reread: 2}) {
		t.Errorf("ledger %+v", ledger)
	}
	if n := safeUpTo(l); n != 300 {
		t.Errorf("safe up to %d", n)
	}
	if err := l.Ship(t.Context(), f.event(2), collector.Checkpoint{End: 400}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if s.Packets("packets").TryShip(query(1, nil)) {
		t.Error("TryShip after close")
	}
}

// TestContainerThatSaysTooMuch: a batch does not become too large for Kafka because somebody has a megabyte of labels.
func TestContainerThatSaysTooMuch(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	s := w.start(failpoints{})
	l := s.Packets("packets")
	for i := range 100 {
		c := &pipeline.Container{Id: fmt.Sprintf("%064d", i), Name: "big", Labels: []*pipeline.Label{{Key: "k", Value: strings.Repeat("v", 1<<20)}}}
		if i%2 == 0 {
			c.Labels[0].Value = strings.Repeat("v", 15<<10)
		}
		if !l.TryShip(query(i, c)) {
			t.Fatal("shed")
		}
	}
	w.close(s)
	w.checkQueries(100)
	for _, m := range w.messages() {
		if m.bytes > int(w.cfg.BatchBytes)+1024 {
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
	w := newHarness(t)
	s := w.start(failpoints{})
	defer s.kill()
	_, err := New(w.cfg, w.kcfg, w.id, testLog(), nil)
	if err == nil || !strings.Contains(err.Error(), "in use by another collector (process "+fmt.Sprint(os.Getpid())+")") {
		t.Errorf("error %v", err)
	}
}

// TestPartitionsChange: batches of an earlier life keep their partition, new events are spread over all.
func TestPartitionsChange(t *testing.T) {
	w := newHarness(t)
	w.startBroker()
	w.kcfg.Partitions = 2
	all := files(12, 300)
	s := w.start(failpoints{afterProduce: func(batchID) { runtime.Goexit() }})
	w.cfg.BufferBytes = 4 * w.cfg.BatchBytes
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, s, all) })
	eventually(t, "batches are in the journal", func() bool { return s.journal.Bytes() > 2000 })
	cancel()
	wg.Wait()
	s.kill()
	w.morePartitions(5)

	s = w.start(failpoints{})
	if n := len(*s.partitions.Load()); n != 5 {
		t.Fatalf("%d partitions", n)
	}
	if err := shipAll(t.Context(), s, all); err != nil {
		t.Fatal(err)
	}
	w.close(s)
	w.checkExactlyOnce(all...)
}
