package ship

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/pipeline/kafka"
)

// A lockedBuffer is a buffer that goroutines write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

// TestMissingPartitionHoldsOnlyItsBatches: a topic is created anew with one partition while batches of four wait. Those
// of the other three are reported, asked for no more, and sent when partitions are added, also by a later process. All
// other lines of the same files go to the partition that exists.
func TestMissingPartitionHoldsOnlyItsBatches(t *testing.T) {
	before := missingInterval
	missingInterval = time.Second
	t.Cleanup(func() { missingInterval = before })

	// 1. The shipper knows four partitions, and Kafka goes away while files wait for memory.
	harness := newHarness(t)
	harness.kcfg.Partitions = 4
	harness.cfg.BufferBytes = 8 * harness.cfg.BatchBytes
	harness.startBroker()
	log := &lockedBuffer{}
	registry := prometheus.NewRegistry()
	shipper, err := newShipper(harness.cfg, harness.kcfg, harness.id, slog.New(slog.NewTextHandler(log, nil)), registry,
		failpoints{})
	if err != nil {
		t.Fatal(err)
	}
	if err := shipper.Unavailable(); err != nil || len(*shipper.partitions.Load()) != 4 {
		t.Fatalf("%d partitions, %v", len(*shipper.partitions.Load()), err)
	}
	harness.stopBroker()
	all := testFiles(12, 3000)
	shipped := make(chan error, 1)
	go func() { shipped <- shipAll(t.Context(), shipper, all) }()
	eventually(t, "the memory of all partitions is full", func() bool {
		for _, partition := range shipper.everyPartition() {
			if !partition.files.budget.isFull() {
				return false
			}
		}
		return true
	})

	// 2. The topic comes back with one partition. Only what is bound to the others waits.
	harness.data = t.TempDir()
	harness.startBroker()
	onePartition := harness.kcfg
	onePartition.Partitions = 1
	harness.createTopics(onePartition)
	if err := <-shipped; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing partitions are reported", func() bool {
		return log.count("lacks partitions") == 1 && !shipper.health.unavailable.Load()
	})
	missing, waiting := shipper.missingPartitions()
	eventually(t, "all other lines arrive", func() bool { return shipper.bufferedEvents() == waiting })
	err = shipper.Unavailable()
	want := "wait for partitions that topic tidegate.events lacks (1, 2, 3); it has 1: add partitions until it has 4"
	if len(missing) != 3 || waiting == 0 || err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("partitions %v, %d events: %v", missing, waiting, err)
	}
	if gauge := gaugeValue(t, registry, "tidegate_collector_missing_partitions"); gauge != 3 {
		t.Errorf("the metric has %v partitions", gauge)
	}
	failures := shipper.counters.produceErrors[kafka.Retriable].Load()
	time.Sleep(1500 * time.Millisecond)
	if now := shipper.counters.produceErrors[kafka.Retriable].Load(); now != failures {
		t.Errorf("%d requests for partitions that do not exist", now-failures)
	}
	if again := log.count("available again"); again > 1 {
		t.Errorf("one outage has ended %d times", again)
	}

	// 3. The stop does not wait for the missing partitions.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := shipper.Close(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("close: %v, %v", err, ctx.Err())
	}
	if ledger := shipper.Ledger(); ledger.Buffered != waiting || !ledger.IsBalanced() {
		t.Errorf("%+v, %d waited", ledger, waiting)
	}

	// 4. The next process reads the lines again. When partitions are added, their batches are sent.
	shipper = harness.startShipper(failpoints{})
	if err := shipAll(t.Context(), shipper, all); err != nil {
		t.Fatal(err)
	}
	if _, again := shipper.missingPartitions(); again == 0 || again > waiting {
		t.Errorf("%d events wait, %d before the restart", again, waiting)
	}
	harness.morePartitions(4)
	eventually(t, "the batches of all partitions are sent", func() bool { return shipper.bufferedEvents() == 0 })
	if err := shipper.Unavailable(); err != nil {
		t.Error(err)
	}
	harness.closeShipper(shipper)
	harness.checkExactlyOnce(all...)
}

// createTopics creates the topics with the settings of cfg.
func (h *harness) createTopics(cfg kafka.Config) {
	h.t.Helper()
	client, err := kafka.New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.EnsureTopics(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// gaugeValue returns the value of a metric without labels.
func gaugeValue(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestFinishedRangesBehindAWaitingBatchAreJoined, in any order of their ends. The checkpoint waits.
func TestFinishedRangesBehindAWaitingBatchAreJoined(t *testing.T) {
	for _, order := range [][]int{{1, 2, 3, 4}, {4, 3, 2, 1}, {1, 3, 2, 4}, {2, 4, 1, 3}} {
		file := newFileProducer(nil, "f", 1)
		var ranges []*batchRange
		for i := range int64(5) {
			lines := &batchRange{
				file: file, batch: &batch{}, after: 100 * i, count: 7,
				end: collector.Checkpoint{End: 100*i + 100, ReadFrom: 100*i + 90},
			}
			ranges = append(ranges, lines)
			file.insertRange(lines)
		}
		for _, i := range order {
			file.finishRange(ranges[i])
		}
		if len(file.ranges) != 2 || file.ranges[0] != ranges[0] || file.checkpoint.End != 0 {
			t.Errorf("%v: %d ranges, checkpoint %+v", order, len(file.ranges), file.checkpoint)
		}
		if joined := file.ranges[1]; joined.after != 100 || joined.end != ranges[4].end || joined.count != 28 || !joined.done {
			t.Errorf("%v: %+v", order, joined)
		}
		if ranges[1].end.End != 200 || ranges[1].count != 7 {
			t.Errorf("%v: a range was changed: %+v", order, ranges[1])
		}
		file.finishRange(ranges[0])
		if len(file.ranges) != 0 || file.checkpoint != ranges[4].end {
			t.Errorf("%v: %d ranges, checkpoint %+v", order, len(file.ranges), file.checkpoint)
		}
	}
}
