package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
		t.Errorf("an empty config: %v", errs)
	}
}

// TestMetricsAreWhatTheShipperHolds: every described metric is exported from the start, and events, batches and bytes
// that wait without Kafka are what the ledger and the disk hold.
func TestMetricsAreWhatTheShipperHolds(t *testing.T) {
	h := newHarness(t)
	shipper := h.withoutKafka()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(shipper)
	gather := func() map[string]float64 {
		t.Helper()
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, family := range families {
			name := strings.TrimPrefix(family.GetName(), "tidegate_collector_")
			for _, metric := range family.GetMetric() {
				key := name
				for _, label := range metric.GetLabel() {
					key += " " + label.GetValue()
				}
				values[key] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
				values[name] += 0 // it is exported
			}
		}
		return values
	}
	start := gather()
	for _, descriptor := range descriptors {
		name := strings.Split(descriptor.String(), `"`)[1]
		if _, ok := start[strings.TrimPrefix(name, "tidegate_collector_")]; !ok {
			t.Errorf("%s is not exported", name)
		}
	}

	file := testFiles(1, 40)[0]
	if err := file.shipTo(t.Context(), shipper.File(file.name)); err != nil {
		t.Fatal(err)
	}
	packets := shipper.Packets("packets")
	for i := range 30 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "the queries are in the spool", func() bool { return shipper.safePackets() == 30 })
	got := gather()
	for key, want := range map[string]float64{
		"events_read_total log": 40, "events_read_total dns": 30, "events_buffered": 70, "events_spooled_total dns": 30, "events_safe_total log": 0,
		"events_safe_total dns": 30, "events_delivered_total log": 0, "buffer_bytes files": float64(shipper.fileBytes()),
		"buffer_bytes packets": 0, "spool_bytes": float64(shipper.spool.Bytes()),
		"journal_bytes": float64(shipper.journal.Bytes()), "batches_delivered_total": 0,
	} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s is %v (%v), want %v", key, value, ok, want)
		}
	}
	if got["buffer_bytes files"] == 0 || got["spool_bytes"] == 0 || got["journal_bytes"] == 0 {
		t.Error("nothing waits in memory, in the spool or in the journal")
	}
	h.startBroker()
	eventually(t, "everything is delivered", func() bool {
		got := gather()
		return got["events_delivered_total log"] == 40 && got["events_delivered_total dns"] == 30
	})
	h.closeShipper(shipper)
	got = gather()
	if got["events_buffered"] != 0 || got["batches_delivered_total"] == 0 || got["buffer_bytes files"] != 0 ||
		got["spool_bytes"] != 0 {
		t.Errorf("after the delivery %v events, %v bytes of lines, %v bytes of the spool; %v batches",
			got["events_buffered"], got["buffer_bytes files"], got["spool_bytes"], got["batches_delivered_total"])
	}
}

// TestEventsArriveUnchanged: lines and packet events arrive once each, with their container.
func TestEventsArriveUnchanged(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.SpoolAfter = time.Minute // on a busy machine, a slow broker must not count as an unavailable one
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	all := testFiles(20, 300)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	packets := shipper.Packets("packets")
	owner := &pipeline.Container{Id: strings.Repeat("e", 64), Name: "dns", Ip: []string{"10.0.0.9"}}
	for i := range 1000 {
		container := owner
		if i%2 == 1 {
			container = nil
		}
		if !packets.TryShip(dnsEvent(i, container)) {
			t.Fatal("shed")
		}
	}
	ledger := harness.closeShipper(shipper)
	if ledger != (Ledger{Read: 7000, Delivered: 7000}) {
		t.Errorf("ledger %+v", ledger)
	}
	for _, file := range all {
		if got := safeUpTo(shipper.File(file.name)); got != 30000 {
			t.Errorf("%s is safe up to %d", file.name, got)
		}
	}
	if safe := shipper.safePackets(); safe != 1000 {
		t.Errorf("%d packets are safe", safe)
	}
	harness.checkExactlyOnce(all...)
	harness.checkContainers(owner, all)
}

// checkContainers checks the containers that the engine gets, and that the events of a container are in one
// partition.
func (h *harness) checkContainers(owner *pipeline.Container, all []*testFile) {
	home := map[string]int{}
	queries := 0
	for _, message := range h.messages() {
		batch := message.batch
		if batch.Host.GetName() != "host-1" || batch.Host.GetCluster() != "test" ||
			batch.Schema != pipeline.Schema || batch.Shipped == 0 {
			h.t.Fatalf("head of a batch: %v", batch.Host)
		}
		if !bytes.Equal(batch.Collector, h.id[:]) {
			h.t.Fatalf("collector %x", batch.Collector)
		}
		for _, event := range batch.Events {
			if at, ok := home[event.Container.GetId()]; ok && at != message.partition {
				h.t.Fatalf("container %q is in partitions %d and %d", event.Container.GetId(), at, message.partition)
			}
			home[event.Container.GetId()] = message.partition
			switch {
			case event.Dns != nil:
				queries++
				container := event.Container
				if container != nil && (container.Name != "dns" || event.Source.Container != container ||
					container.Ip[0] != "10.0.0.9") {
					h.t.Fatalf("container of a query: %v", container)
				}
			case event.Container.GetLabels()[0].Value != "shop" ||
				!strings.HasPrefix(event.Log.Message, "file-"+event.Container.Name[1:]+" "):
				h.t.Fatalf("%q is of container %v", event.Log.Message, event.Container)
			}
		}
	}
	if queries != 1000 || len(home) != len(all)+2 {
		h.t.Errorf("%d queries, %d owners", queries, len(home))
	}
}

// TestKilledBetweenJournalAndProduce: the journal has batches that were never sent.
func TestKilledBetweenJournalAndProduce(t *testing.T) {
	killAt(t, func(reached *atomic.Int64) failpoints {
		return failpoints{beforeProduce: func(batchID) {
			if reached.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 0)
}

// TestKilledBetweenProduceAndAck: batches are in Kafka, and the journal does not record it.
func TestKilledBetweenProduceAndAck(t *testing.T) {
	killAt(t, func(reached *atomic.Int64) failpoints {
		return failpoints{afterProduce: func(batchID) {
			if reached.Add(1) > 3 {
				runtime.Goexit()
			}
		}}
	}, 4)
}

// killAt ships files with a shipper whose senders stop at a failpoint, kills it, and ships the rest with
// another. At least repeats batches must be in Kafka twice. failpoint gets a counter of the batches that
// reach it.
func killAt(t *testing.T, failpoint func(reached *atomic.Int64) failpoints, repeats int) {
	harness := newHarness(t)
	harness.startBroker()
	harness.cfg.BufferBytes = 4 * harness.cfg.BatchBytes
	all := testFiles(8, 2000)
	var reached atomic.Int64
	shipper := harness.startShipper(failpoint(&reached))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, shipper, all) })
	// All senders of all partitions have stopped at the failpoint.
	eventually(t, "every sender has stopped", func() bool { return reached.Load() >= 4*3+3 })
	cancel()
	wg.Wait()
	shipper.kill()

	shipper = harness.startShipper(failpoints{})
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	ledger := harness.closeShipper(shipper)
	if ledger.Lost != 0 || ledger.Buffered != 0 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkExactlyOnce(all...)
	if _, got := harness.deduplicatedEvents(); got < repeats {
		t.Errorf("%d repeats, the failpoint was not reached", got)
	}
}

// TestAnyKillLosesAndDuplicatesNothing kills shippers at random points, one after the other, while the broker
// is stopped at intervals.
func TestAnyKillLosesAndDuplicatesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	stopped, repeats := 0, 0
	for seed := range tortureSeeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			stoppedHere, repeatsHere := tortureSeed(t, seed)
			stopped, repeats = stopped+stoppedHere, repeats+repeatsHere
		})
	}
	// Without these the test would have shown nothing.
	if t.Logf("%d shippers stopped at a failpoint, %d batches were repeated", stopped, repeats); stopped == 0 || repeats == 0 {
		t.Error("no shipper stopped at a failpoint, or no batch was repeated")
	}
}

// TestFilesWaitAndPacketsAreSpooledWithoutKafka: while Kafka is unavailable, the readers of files wait and
// packet events go to the spool. Everything is delivered afterwards.
func TestFilesWaitAndPacketsAreSpooledWithoutKafka(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	harness.cfg.BufferBytes = 4 * harness.cfg.BatchBytes
	shipper := harness.startShipper(failpoints{})
	all := testFiles(4, 3000)
	packets := shipper.Packets("packets")
	for i := range 100 {
		packets.TryShip(dnsEvent(i, nil))
	}
	eventually(t, "the first are safe", func() bool { return shipper.safePackets() == 100 })
	harness.stopBroker()

	var wg sync.WaitGroup
	wg.Go(func() {
		if err := shipAll(t.Context(), shipper, all); err != nil {
			t.Error(err)
		}
	})
	for i := 100; i < 5000; i++ {
		for !packets.TryShip(dnsEvent(i, nil)) {
			t.Fatalf("query %d was shed: %+v", i, shipper.Ledger())
		}
		if i%100 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	eventually(t, "packets are safe in the spool", func() bool { return shipper.safePackets() == 5000 })
	eventually(t, "files wait", func() bool { return shipper.fileBytes() >= int64(harness.cfg.BufferBytes)/2/4 })
	if safe := safeUpTo(shipper.File(all[0].name)); safe != 0 {
		t.Errorf("lines are safe up to %d while Kafka is unavailable", safe)
	}
	harness.startBroker()
	wg.Wait()
	ledger := harness.closeShipper(shipper)
	if ledger.Delivered != 17000 || ledger.Dropped+ledger.Lost+ledger.Buffered != 0 || ledger.Spooled < 4000 ||
		shipper.spool.Bytes() != 0 {
		t.Errorf("ledger %+v, spool %d", ledger, shipper.spool.Bytes())
	}
	harness.checkExactlyOnce(all...)
	harness.checkQueries(5000)
}

// checkQueries checks that the queries with the numbers below queries are in Kafka once each.
func (h *harness) checkQueries(queries int) {
	h.t.Helper()
	times := map[string]int{}
	events, _ := h.deduplicatedEvents()
	for _, event := range events {
		if event.Dns != nil {
			times[event.Dns.QuestionName]++
		}
	}
	for i := range queries {
		if name := fmt.Sprintf("q%d.example", i); times[name] != 1 {
			h.t.Fatalf("%s is there %d times (%d of %d in all)", name, times[name], len(times), queries)
		}
	}
}

// TestSpoolSurvivesAKill: packet events that were reported as safe are delivered after a kill.
func TestSpoolSurvivesAKill(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	harness.startShipper(failpoints{}).kill() // the number of partitions is now in the journal
	harness.stopBroker()
	shipper := harness.startShipper(failpoints{})
	packets := shipper.Packets("packets")
	for i := range 9000 {
		for !packets.TryShip(dnsEvent(i, &pipeline.Container{Id: fmt.Sprintf("%064d", i%7)})) {
			t.Fatal("shed")
		}
	}
	eventually(t, "all is spooled", func() bool { return shipper.safePackets() == 9000 })
	shipper.kill()

	harness.startBroker()
	shipper = harness.startShipper(failpoints{})
	ledger := harness.closeShipper(shipper)
	if ledger.Recovered != 9000 || ledger.Delivered != 9000 || ledger.Read != 0 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkQueries(9000)
	if names, _ := filepath.Glob(filepath.Join(harness.state, "spool", "*")); len(names) != 0 {
		t.Errorf("left in the spool: %v", names)
	}
}

// TestStopWithoutKafka: a clean stop leaves packet events in the spool and lines in their files.
func TestStopWithoutKafka(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.SpoolAfter = time.Hour // nothing is spooled before the stop
	shipper := harness.startShipper(failpoints{})
	packets := shipper.Packets("packets")
	all := testFiles(3, 500)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		packets.TryShip(dnsEvent(i, nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := shipper.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if ledger := shipper.Ledger(); !ledger.IsBalanced() || ledger.Buffered != 2000 || ledger.Spooled != 500 {
		t.Errorf("ledger %+v", ledger)
	}

	harness.startBroker()
	shipper = harness.startShipper(failpoints{})
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	if ledger := harness.closeShipper(shipper); ledger.Delivered != 2000 || ledger.Recovered != 500 {
		t.Errorf("ledger %+v", ledger)
	}
	harness.checkExactlyOnce(all...)
	harness.checkQueries(500)
}

// TestMemoryIsBoundedWithoutKafka: files wait; packets fill the spool and are then shed, with a reason.
func TestMemoryIsBoundedWithoutKafka(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.BatchBytes = 32 << 10
	harness.cfg.BufferBytes = 1 << 20
	harness.cfg.SpoolBytes = 2 * maxBatchBytes
	shipper := harness.startShipper(failpoints{})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, shipper, testFiles(4, 100_000)) })
	packets := shipper.Packets("packets")
	limit := int64(harness.cfg.BufferBytes)/2 + int64(harness.cfg.BatchBytes)
	for i := range 200_000 {
		packets.TryShip(dnsEvent(i, nil))
		if used := shipper.packetBudget.used.Load(); used > limit {
			t.Fatalf("packets hold %d bytes", used)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	session := pipeline.EventFromVTPool()
	session.Dataset = pipeline.Dataset_SESSION
	if shipper.spool.Condition() != spool.Full || shipper.spool.Bytes() > int64(harness.cfg.SpoolBytes) {
		t.Errorf("spool: state %d, %d bytes", shipper.spool.Condition(), shipper.spool.Bytes())
	}
	if !packets.TryShip(session) {
		t.Error("a session was shed although there was memory for it")
	}
	if used := shipper.fileBytes(); used > limit {
		t.Errorf("files hold %d bytes", used)
	}
	cancel()
	wg.Wait()
	ledger := harness.closeShipper(shipper)
	full := shipper.counters.discarded[dropSpoolFull][pipeline.Dataset_DNS].Load()
	if ledger.Dropped == 0 || full == 0 || ledger.Lost != 0 {
		t.Errorf("ledger %+v, spool full %d", ledger, full)
	}
	if shipper.safePackets() > 200_001 {
		t.Error("more is safe than was shipped")
	}
}

// TestShedsInTheDeclaredOrder: the fuller the memory of packets, the more valuable datasets are shed.
func TestShedsInTheDeclaredOrder(t *testing.T) {
	check := func(dataset pipeline.Dataset, partial bool, percent int64, want bool) {
		t.Helper()
		if got := shouldShed(&pipeline.Event{Dataset: dataset, Partial: partial}, percent, 100); got != want {
			t.Errorf("%v partial %v at %d %%: %v", dataset, partial, percent, got)
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

// TestLinesOfRemovedFilesGoToTheSpool: a file that is unlinked cannot be read again, so its lines do not wait
// for Kafka.
func TestLinesOfRemovedFilesGoToTheSpool(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	harness.startShipper(failpoints{}).kill()
	harness.stopBroker()
	shipper := harness.startShipper(failpoints{})
	files := testFiles(2, 4000)
	files[1].lines = 700
	kept := shipper.File(files[1].name) // its lines share batches with those of the other
	kept.(*fileProducer).partition = (*shipper.partitions.Load())[partitionFor(files[0].container.Id, 4)]
	gone := shipper.File(files[0].name)
	var wg sync.WaitGroup
	wg.Go(func() { files[1].shipTo(t.Context(), kept) })
	for i := range files[0].lines {
		if i == 1500 {
			gone.SourceGone()
		}
		at := int64(i+1) * 100
		if err := gone.Ship(t.Context(), files[0].event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	gone.Close(false)
	wg.Wait()
	eventually(t, "the lines of the removed file are safe", func() bool { return safeUpTo(gone) == 400_000 })
	shipper.kill()

	harness.startBroker()
	shipper = harness.startShipper(failpoints{})
	if _, ok := shipper.File(files[0].name).Resume(); ok {
		t.Error("a file that was closed for good still has a checkpoint")
	}
	if err := files[1].shipTo(t.Context(), shipper.File(files[1].name)); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(files...)
}

// TestFileThatDoesNotComeBack: the lines of a file that is not read again are counted as unconfirmed, and the
// other lines of their batches are sent.
func TestFileThatDoesNotComeBack(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	all := testFiles(6, 400)
	harness.cfg.BufferBytes = 16 * harness.cfg.BatchBytes
	shipper := harness.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, shipper, all) })
	eventually(t, "batches are in the journal", func() bool { return shipper.journal.Bytes() > 1000 })
	time.Sleep(50 * time.Millisecond)
	cancel()
	wg.Wait()
	shipper.kill()

	harness.cfg.ResumeTimeout = 200 * time.Millisecond
	shipper = harness.startShipper(failpoints{})
	missing := uint64(0)
	state := shipper.journal.State()
	for _, batch := range state.Batches {
		for _, lines := range batch.Ranges {
			file := slices.IndexFunc(state.Files, func(file journal.File) bool { return file.ID == lines.File })
			if state.Files[file].Name == all[0].name {
				missing += uint64(lines.Events)
			}
		}
	}
	if missing == 0 {
		t.Fatal("nothing of the file is in the journal")
	}
	if err := shipAll(t.Context(), shipper, all[1:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the file is given up", func() bool { return shipper.Ledger().Unconfirmed == missing })
	eventually(t, "the others are safe", func() bool {
		for _, file := range all[1:] {
			if safeUpTo(shipper.File(file.name)) != 40000 {
				return false
			}
		}
		return true
	})
	// The file comes back after all, and all its lines are sent.
	if err := all[0].shipTo(t.Context(), shipper.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)
}

// TestOtherFilesDoNotWaitForAVanishedOne: when a complete listing does not contain a file, the other files of its
// batches are sent at once, and not after ResumeTimeout.
func TestOtherFilesDoNotWaitForAVanishedOne(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	all := testFiles(6, 400)
	harness.cfg.BufferBytes = 16 * harness.cfg.BatchBytes
	shipper := harness.startShipper(failpoints{beforeProduce: func(batchID) { runtime.Goexit() }})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, shipper, all) })
	eventually(t, "batches are in the journal", func() bool { return shipper.journal.Bytes() > 1000 })
	time.Sleep(50 * time.Millisecond)
	cancel()
	wg.Wait()
	shipper.kill()

	harness.cfg.ResumeTimeout = time.Hour
	shipper = harness.startShipper(failpoints{})
	began := time.Now()
	shipper.Prune(func(name string) bool { return name != all[0].name })
	if err := shipAll(t.Context(), shipper, all[1:]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the others are safe", func() bool {
		for _, file := range all[1:] {
			if safeUpTo(shipper.File(file.name)) != 40000 {
				return false
			}
		}
		return true
	})
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	ledger := harness.closeShipper(shipper)
	if ledger.Unconfirmed == 0 || ledger.Lost != 0 {
		t.Errorf("%+v", ledger)
	}
	harness.checkExactlyOnce(all[1:]...)
}

// TestAMissingJournalIsReported: an earlier process has drawn the id, and its journal is not there. The partitions of the topic are
// reported where the journal does not know them.
func TestAMissingJournalIsReported(t *testing.T) {
	harness := newHarness(t)
	harness.kcfg.Partitions = 3
	harness.startBroker()
	isFirst := true
	check := func(want bool) {
		t.Helper()
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		shipper, err := newShipper(harness.cfg, harness.kcfg, harness.id, log, nil, failpoints{})
		if err != nil {
			t.Fatal(err)
		}
		harness.closeShipper(shipper)
		missing := "level=WARN msg=\"a collector has run with this state folder before, but its journal is missing: log files are read " +
			"from their beginning, and lines may be stored twice\" folder=" + harness.state + "\n"
		found := "level=INFO msg=\"events topic found\" topic=tidegate.events partitions=3\n"
		lines := 0
		if want {
			lines++
		}
		if isFirst || want {
			lines++
		}
		if got := out.String(); strings.Contains(got, missing) != want || strings.Contains(got, found) != (isFirst || want) || strings.Count(got, "\n") != lines {
			t.Errorf("missing %t, first %t: %s", want, isFirst, got)
		}
		isFirst = false
	}
	check(false) // the first start
	yesterday := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(filepath.Join(harness.state, "collector-id"), yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	check(false)
	for _, damage := range []func(string) error{os.Remove, func(path string) error { return os.Truncate(path, 0) }} {
		if err := damage(filepath.Join(harness.state, "journal")); err != nil {
			t.Fatal(err)
		}
		check(true)
	}
}

// TestClosedFileIsDroppedUnlessKept: Close(false) drops the checkpoint of a file, Close(true) keeps it.
func TestClosedFileIsDroppedUnlessKept(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	all := testFiles(2, 100)
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	shipper.File(all[0].name).Close(false)
	shipper.File(all[1].name).Close(true)
	harness.closeShipper(shipper)
	shipper = harness.startShipper(failpoints{})
	if checkpoint, ok := shipper.File(all[0].name).Resume(); ok {
		t.Errorf("the first is at %v", checkpoint)
	}
	if checkpoint, ok := shipper.File(all[1].name).Resume(); !ok || checkpoint.End != 10000 {
		t.Errorf("the second is at %v, %v", checkpoint, ok)
	}
	// The first name now means a new file, which begins at 0.
	if err := all[0].shipTo(t.Context(), shipper.File(all[0].name)); err != nil {
		t.Fatal(err)
	}
	if ledger := harness.closeShipper(shipper); ledger.Delivered != 100 {
		t.Errorf("ledger %+v", ledger)
	}
}

// TestRepeatedAndOversizedEventsAreCounted: events that were shipped before and events that are larger than a
// batch are not sent, and each is counted.
func TestRepeatedAndOversizedEventsAreCounted(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	producer := shipper.File("f")
	file := testFiles(1, 3)[0]
	ship := func(i int, at int64) {
		t.Helper()
		if err := producer.Ship(t.Context(), file.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			t.Fatal(err)
		}
	}
	ship(0, 100)
	ship(0, 100)
	ship(0, 50)
	big := file.event(1)
	big.Log.Message = strings.Repeat("x", int(harness.cfg.BatchBytes))
	if err := producer.Ship(t.Context(), big, collector.Checkpoint{End: 200, ReadFrom: 200}); err != nil {
		t.Fatal(err)
	}
	ship(2, 300)
	ledger := harness.closeShipper(shipper)
	if ledger != (Ledger{Read: 3, Delivered: 2, Dropped: 1, Reread: 2}) {
		t.Errorf("ledger %+v", ledger)
	}
	if safe := safeUpTo(producer); safe != 300 {
		t.Errorf("safe up to %d", safe)
	}
	if err := producer.Ship(t.Context(), file.event(2), collector.Checkpoint{End: 400}); !errors.Is(err, ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	if shipper.Packets("packets").TryShip(dnsEvent(1, nil)) {
		t.Error("TryShip after close")
	}
}

// TestContainerWithTooMuchMetadata: a megabyte of labels does not make a batch too large for Kafka.
func TestContainerWithTooMuchMetadata(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	packets := shipper.Packets("packets")
	for i := range 100 {
		container := &pipeline.Container{
			Id:     fmt.Sprintf("%064d", i),
			Name:   "big",
			Labels: []*pipeline.Label{{Key: "k", Value: strings.Repeat("v", 1<<20)}},
		}
		if i%2 == 0 {
			container.Labels[0].Value = strings.Repeat("v", 15<<10)
		}
		if !packets.TryShip(dnsEvent(i, container)) {
			t.Fatal("shed")
		}
	}
	harness.closeShipper(shipper)
	harness.checkQueries(100)
	for _, message := range harness.messages() {
		if message.bytes > int(harness.cfg.BatchBytes)+1024 {
			t.Errorf("a batch of %d bytes", message.bytes)
		}
		for _, event := range message.batch.Events {
			if event.Container.GetName() != "big" || event.Source.Container != event.Container {
				t.Fatalf("container %v", event.Container.GetName())
			}
		}
	}
}

// TestBatchIsBoundedWithTheMetadataOfEachEvent: an engine has the labels of the container in the row of each event.
func TestBatchIsBoundedWithTheMetadataOfEachEvent(t *testing.T) {
	harness := newHarness(t)
	harness.cfg.BatchEvents, harness.cfg.BatchBytes, harness.cfg.Linger = maxBatchEvents, maxBatchBytes, time.Minute
	harness.startBroker()
	shipper := harness.startShipper(failpoints{})
	container := &pipeline.Container{Id: "c", Labels: []*pipeline.Label{{Key: "k", Value: strings.Repeat("v", 12<<10)}}}
	packets := shipper.Packets("packets")
	const sent = 10_000
	for i := range sent {
		if !packets.TryShip(dnsEvent(i, container)) {
			t.Fatal("shed")
		}
	}
	harness.closeShipper(shipper)
	events := 0
	for _, message := range harness.messages() {
		events += len(message.batch.Events)
		if most := maxShared/container.SizeVT() + 1; len(message.batch.Events) > most {
			t.Errorf("a batch of %d events, more than %d", len(message.batch.Events), most)
		}
	}
	if events != sent {
		t.Errorf("%d events", events)
	}
}

// TestSecondCollectorIsRejected: two collectors cannot use one state folder.
func TestSecondCollectorIsRejected(t *testing.T) {
	harness := newHarness(t)
	shipper := harness.startShipper(failpoints{})
	defer shipper.kill()
	_, err := New(harness.cfg, harness.kcfg, harness.id, testLog(), nil)
	want := fmt.Sprintf("in use by another collector (process %d)", os.Getpid())
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v", err)
	}
}

// TestPartitionsChange: batches of an earlier process keep their partition; new events are spread over all.
func TestPartitionsChange(t *testing.T) {
	harness := newHarness(t)
	harness.startBroker()
	harness.kcfg.Partitions = 2
	all := testFiles(12, 300)
	shipper := harness.startShipper(failpoints{afterProduce: func(batchID) { runtime.Goexit() }})
	harness.cfg.BufferBytes = 4 * harness.cfg.BatchBytes
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { shipAll(ctx, shipper, all) })
	eventually(t, "batches are in the journal", func() bool { return shipper.journal.Bytes() > 2000 })
	cancel()
	wg.Wait()
	shipper.kill()
	harness.morePartitions(5)

	shipper = harness.startShipper(failpoints{})
	if partitions := len(*shipper.partitions.Load()); partitions != 5 {
		t.Fatalf("%d partitions", partitions)
	}
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)
}
