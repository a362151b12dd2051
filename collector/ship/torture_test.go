package ship

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// tortureSeed runs 13 shippers one after the other. All but the last are closed or killed at a random point,
// and the broker is restarted at intervals. seed determines all random choices. It returns the number of shippers
// that stopped sending at a failpoint, and of batches that are in Kafka more than once.
func tortureSeed(t *testing.T, seed uint64) (stopped, repeats int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	harness := newHarness(t)
	harness.cfg.BatchEvents = 5 + rng.IntN(60)
	harness.cfg.BufferBytes = 16 * harness.cfg.BatchBytes
	harness.startBroker()
	all := testFiles(3+rng.IntN(10), 6000)
	packets := packetLog{safe: map[string]bool{}}
	for run := 0; ; run++ {
		// Each shipper stops sending after so many batches have reached one of the two failpoints; the last
		// one does not.
		before, after := rng.Int64N(300), rng.Int64N(300)
		var reachedBefore, reachedAfter atomic.Int64
		points := failpoints{
			beforeProduce: func(batchID) { exitAfter(&reachedBefore, before) },
			afterProduce:  func(batchID) { exitAfter(&reachedAfter, after) },
		}
		last := run == 12
		if last {
			points = failpoints{}
		}
		points.afterConfirm, points.compactAt = packets.recordSafe, 3000 // bytes: the journal is compacted often
		shipper := harness.startShipper(points)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var finished atomic.Bool
		wg.Go(func() {
			if shipAll(ctx, shipper, all) == nil {
				finished.Store(true)
			}
		})
		stopPackets := packets.shipQueries(shipper, &wg)
		if last {
			stopPackets()
			wg.Wait()
			ledger := harness.closeShipper(shipper)
			if ledger.Lost != 0 || ledger.Buffered != 0 {
				t.Errorf("ledger %+v", ledger)
			}
			cancel()
			break
		}
		if rng.IntN(4) == 0 {
			time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
			harness.stopBroker()
			time.Sleep(time.Duration(rng.IntN(100)) * time.Millisecond)
			harness.startBroker()
		}
		end := time.Now().Add(time.Duration(10+rng.IntN(150)) * time.Millisecond)
		for time.Now().Before(end) && !finished.Load() &&
			reachedBefore.Load() <= before && reachedAfter.Load() <= after {
			time.Sleep(time.Millisecond)
		}
		if reachedBefore.Load() > before || reachedAfter.Load() > after {
			stopped++
		}
		if rng.IntN(3) == 0 { // some are closed in order, as far as their senders still run
			stop, cancelStop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			shipper.Close(stop)
			cancelStop()
			cancel()
			stopPackets()
			wg.Wait()
		} else {
			cancel()
			stopPackets()
			wg.Wait()
			shipper.kill()
		}
	}
	harness.checkExactlyOnce(all...)
	packets.checkDelivered(harness)
	_, repeats = harness.deduplicatedEvents()
	return stopped, repeats
}

// A packetLog holds the queries that all shippers of a test have shipped, and which of them were reported as
// safe.
type packetLog struct {
	next int

	mu   sync.Mutex
	safe map[string]bool // names of queries
}

// shipQueries ships queries from a goroutine until the function that it returns is called.
func (q *packetLog) shipQueries(shipper *Shipper, wg *sync.WaitGroup) (stop func()) {
	var over atomic.Bool
	wg.Go(func() {
		producer := shipper.Packets("packets")
		for !over.Load() {
			i := q.next
			q.next++
			producer.TryShip(dnsEvent(i, &pipeline.Container{Id: strconv.Itoa(i % 5)}))
			if i%20 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	return func() { over.Store(true) }
}

// recordSafe records the queries of a batch that is safe.
func (q *packetLog) recordSafe(batch []byte) {
	var decoded pipeline.Batch
	if err := decoded.UnmarshalVT(batch); err != nil {
		panic(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, event := range decoded.Events {
		if event.Dns != nil {
			q.safe[strings.Clone(event.Dns.QuestionName)] = true
		}
	}
}

// checkDelivered checks that every safe query is in Kafka, and no query twice.
func (q *packetLog) checkDelivered(h *harness) {
	h.t.Helper()
	times := map[string]int{}
	events, _ := h.deduplicatedEvents()
	for _, event := range events {
		if event.Dns != nil {
			times[event.Dns.QuestionName]++
		}
	}
	lost := 0
	for name := range q.safe {
		if times[name] == 0 {
			lost++
		}
	}
	for name, count := range times {
		if count > 1 {
			h.t.Errorf("%s is there %d times", name, count)
		}
	}
	h.t.Logf("%d queries, %d safe before their process ended", q.next, len(q.safe))
	if lost > 0 || len(q.safe) == 0 {
		h.t.Errorf("%d of %d queries that were safe are lost", lost, len(q.safe))
	}
}

// exitAfter ends its goroutine if it was called more than limit times with the same counter.
func exitAfter(calls *atomic.Int64, limit int64) {
	if calls.Add(1) > limit {
		runtime.Goexit()
	}
}

// morePartitions raises the number of partitions of the events topic to count.
func (h *harness) morePartitions(count int32) {
	h.t.Helper()
	client, err := kafka.New(h.kcfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer client.Close()
	response, err := client.Kafka().CreatePartitions(h.t.Context(), &kafkago.CreatePartitionsRequest{
		Topics: []kafkago.TopicPartitionsConfig{{Name: client.Topic("events"), Count: count}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, err := range response.Errors {
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// tortureSeeds returns the number of seeds: 4, or the value of the environment variable TIDEGATE_TORTURE.
func tortureSeeds() uint64 {
	if seeds, err := strconv.ParseUint(os.Getenv("TIDEGATE_TORTURE"), 10, 32); err == nil {
		return seeds
	}
	return 4
}
