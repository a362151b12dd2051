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

func tortureSeed(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	h := newHarness(t)
	h.cfg.BatchEvents = 5 + r.IntN(60)
	h.cfg.BufferBytes = 16 * h.cfg.BatchBytes
	h.startBroker()
	all := testFiles(3+r.IntN(10), 6000)
	packets := packetLog{safe: map[string]bool{}}
	for n := 0; ; n++ {
		// Each shipper stops sending after so many batches have reached one of the two failpoints; the last
		// one does not.
		before, after := r.Int64N(300), r.Int64N(300)
		var a, b atomic.Int64
		sm := failpoints{
			beforeProduce: func(batchID) { exitAfter(&a, before) },
			afterProduce:  func(batchID) { exitAfter(&b, after) },
		}
		last := n == 12
		if last {
			sm = failpoints{}
		}
		sm.afterConfirm, sm.compactAt = packets.recordSafe, 3000 // compacted all the time
		s := h.startShipper(sm)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var finished atomic.Bool
		wg.Go(func() {
			if shipAll(ctx, s, all) == nil {
				finished.Store(true)
			}
		})
		stopPackets := packets.shipQueries(s, &wg)
		if last {
			stopPackets()
			wg.Wait()
			l := h.closeShipper(s)
			if l.Lost != 0 || l.Buffered != 0 {
				t.Errorf("ledger %+v", l)
			}
			cancel()
			break
		}
		if r.IntN(4) == 0 {
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			h.stopBroker()
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			h.startBroker()
		}
		for end := time.Now().Add(time.Duration(10+r.IntN(150)) * time.Millisecond); time.Now().Before(end) && !finished.Load() && a.Load() <= before && b.Load() <= after; {
			time.Sleep(time.Millisecond)
		}
		if r.IntN(3) == 0 { // some end in order, as far as their senders still run
			stop, cancelStop := context.WithTimeout(t.Context(), 50*time.Millisecond)
			s.Close(stop)
			cancelStop()
			cancel()
			stopPackets()
			wg.Wait()
		} else {
			cancel()
			stopPackets()
			wg.Wait()
			s.kill()
		}
	}
	h.checkExactlyOnce(all...)
	packets.checkDelivered(h)
}

// A packetLog holds what was shipped through producers of packets, over all processes, and which of it was
// reported as safe.
type packetLog struct {
	next int

	mu   sync.Mutex
	safe map[string]bool // names of queries
}

// shipQueries ships queries from a goroutine until the function that it returns is called.
func (q *packetLog) shipQueries(s *Shipper, wg *sync.WaitGroup) (stop func()) {
	var over atomic.Bool
	wg.Go(func() {
		producer := s.Packets("packets")
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
	var b pipeline.Batch
	if err := b.UnmarshalVT(batch); err != nil {
		panic(err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range b.Events {
		if e.Dns != nil {
			q.safe[strings.Clone(e.Dns.QuestionName)] = true
		}
	}
}

// checkDelivered finds every query that was safe, and none twice.
func (q *packetLog) checkDelivered(h *harness) {
	h.t.Helper()
	times := map[string]int{}
	events, _ := h.deduplicatedEvents()
	for _, e := range events {
		if e.Dns != nil {
			times[e.Dns.QuestionName]++
		}
	}
	lost := 0
	for name := range q.safe {
		if times[name] == 0 {
			lost++
		}
	}
	for name, n := range times {
		if n > 1 {
			h.t.Errorf("%s is there %d times", name, n)
		}
	}
	h.t.Logf("%d queries, %d safe before their process ended", q.next, len(q.safe))
	if lost > 0 || len(q.safe) == 0 {
		h.t.Errorf("%d of %d queries that were safe are lost", lost, len(q.safe))
	}
}

func exitAfter(n *atomic.Int64, limit int64) {
	if n.Add(1) > limit {
		runtime.Goexit()
	}
}

func (h *harness) morePartitions(n int32) {
	h.t.Helper()
	c, err := kafka.New(h.kcfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Kafka().CreatePartitions(h.t.Context(), &kafkago.CreatePartitionsRequest{
		Topics: []kafkago.TopicPartitionsConfig{{Name: c.Topic("events"), Count: n}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	for _, err := range r.Errors {
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// tortureSeeds returns how many seeds are tried. The environment variable TIDEGATE_TORTURE asks for more than
// a quick run has time for.
func tortureSeeds() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("TIDEGATE_TORTURE"), 10, 32); err == nil {
		return n
	}
	return 4
}
