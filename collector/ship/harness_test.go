package ship

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/collector"
	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A harness holds a broker that can be stopped and started, a state folder, and the settings of the shippers
// that run there one after the other.
type harness struct {
	t      *testing.T
	port   int
	data   string
	state  string
	id     pipeline.ID
	broker *kfake.Cluster
	cfg    Config
	kcfg   kafka.Config
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	h := &harness{t: t, port: freePort(t), data: t.TempDir(), state: t.TempDir()}
	var err error
	if h.id, err = collector.LoadID(h.state); err != nil {
		t.Fatal(err)
	}
	h.cfg = Default()
	h.cfg.StateDir, h.cfg.Host, h.cfg.Cluster = h.state, "host-1", "test"
	h.cfg.Linger, h.cfg.SpoolAfter = 5*time.Millisecond, 50*time.Millisecond
	h.cfg.BatchEvents, h.cfg.BatchBytes = 50, 64<<10
	h.kcfg = kafka.Default()
	h.kcfg.Brokers, h.kcfg.Timeout = []string{"127.0.0.1:" + strconv.Itoa(h.port)}, 2*time.Second
	t.Cleanup(h.stopBroker)
	return h
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (h *harness) startBroker() {
	h.t.Helper()
	var err error
	h.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(h.port), kfake.DataDir(h.data))
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) stopBroker() {
	if h.broker != nil {
		h.broker.Close()
		h.broker = nil
	}
}

func testLog() *slog.Logger {
	if os.Getenv("SHIP_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// startShipper starts the next shipper on the state folder.
func (h *harness) startShipper(sm failpoints) *Shipper {
	h.t.Helper()
	s, err := newShipper(h.cfg, h.kcfg, h.id, testLog(), prometheus.NewRegistry(), sm)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// kill ends a shipper as kill -9 does: nothing that is in memory is sent or written.
func (s *Shipper) kill() {
	s.closing.Store(true)
	close(s.stop)
	s.stopWorkers()
	_ = s.closeFiles(false)
}

func (h *harness) closeShipper(s *Shipper) Ledger {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		h.t.Errorf("close: %v", err)
	}
	l := s.Ledger()
	if !l.IsBalanced() {
		h.t.Errorf("the ledger does not balance: %+v", l)
	}
	return l
}

// A kafkaMessage is a batch that was read from Kafka.
type kafkaMessage struct {
	partition int
	bytes     int
	batch     *pipeline.Batch
}

// messages returns everything that is in the events topic.
func (h *harness) messages() []kafkaMessage {
	h.t.Helper()
	c, err := kafka.New(h.kcfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	topic := c.Topic(pipeline.TopicEvents)
	n, err := c.Partitions(h.t.Context(), topic)
	if err != nil {
		h.t.Fatal(err)
	}
	var all []kafkaMessage
	for p := range n {
		all = append(all, h.readPartition(c, topic, p)...)
	}
	return all
}

func (h *harness) readPartition(c *kafka.Client, topic string, p int) (all []kafkaMessage) {
	conn, err := c.Dialer().DialLeader(h.t.Context(), "tcp", c.Brokers()[0], topic, p)
	if err != nil {
		h.t.Fatal(err)
	}
	defer conn.Close()
	end, err := conn.ReadLastOffset()
	if err != nil {
		h.t.Fatal(err)
	}
	if end == 0 {
		return nil
	}
	r := kafkago.NewReader(kafkago.ReaderConfig{Brokers: c.Brokers(), Topic: topic, Partition: p, Dialer: c.Dialer(), MaxBytes: 32 << 20, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	for {
		ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
		m, err := r.ReadMessage(ctx)
		cancel()
		if err != nil {
			h.t.Fatal(err)
		}
		b := &pipeline.Batch{}
		if err := b.UnmarshalVT(m.Value); err != nil {
			h.t.Fatalf("partition %d offset %d: %v", p, m.Offset, err)
		}
		if b.Partition != uint32(p) {
			h.t.Errorf("a batch of partition %d lies in %d", b.Partition, p)
		}
		pipeline.ResolveReferences(b)
		all = append(all, kafkaMessage{p, len(m.Value), b})
		if m.Offset+1 >= end {
			return all
		}
	}
}

// A dedupWindow holds what a reader of the topic remembers of one (collector, epoch, partition): the highest
// sequence and which of the 64 up to it were read.
type dedupWindow struct {
	high uint64
	seen uint64
}

func (m *dedupWindow) isNew(seq uint64) bool {
	if seq > m.high {
		if d := seq - m.high; d < 64 {
			m.seen <<= d
		} else {
			m.seen = 0
		}
		m.seen |= 1
		m.high = seq
		return true
	}
	d := m.high - seq
	if d >= 64 || m.seen&(1<<d) != 0 {
		return false
	}
	m.seen |= 1 << d
	return true
}

// deduplicatedEvents returns the events of the topic. It drops repeated batches as the engine does, and
// counts them.
func (h *harness) deduplicatedEvents() (events []*pipeline.Event, repeats int) {
	type who struct {
		collector string
		epoch     uint64
		partition int
	}
	readers := map[who]*dedupWindow{}
	for _, m := range h.messages() {
		k := who{string(m.batch.Collector), m.batch.Epoch, m.partition}
		if readers[k] == nil {
			readers[k] = &dedupWindow{}
		}
		if readers[k].isNew(m.batch.Sequence) {
			events = append(events, m.batch.Events...)
		} else {
			repeats++
		}
	}
	return events, repeats
}

// checkExactlyOnce checks that every line of files is in Kafka once, and that there are no other lines.
func (h *harness) checkExactlyOnce(files ...*testFile) {
	h.t.Helper()
	times := map[string]int{}
	events, _ := h.deduplicatedEvents()
	for _, e := range events {
		if e.Log != nil {
			times[e.Log.Message]++
		}
	}
	bad := 0
	complain := func(format string, args ...any) {
		if bad++; bad < 10 {
			h.t.Errorf(format, args...)
		}
	}
	for _, f := range files {
		for i := range f.lines {
			m := f.message(i)
			if times[m] != 1 {
				complain("%s: %d times", m, times[m])
			}
			delete(times, m)
		}
	}
	for m, n := range times {
		complain("%s: %d times, never written", m, n)
	}
	if bad > 0 {
		h.t.Fatalf("%d lines are wrong", bad)
	}
}

// A testFile is a log file that can be read again.
type testFile struct {
	name      string
	container *pipeline.Container
	lines     int
	size      int // of each
}

func testFiles(n, lines int) (all []*testFile) {
	for i := range n {
		id := fmt.Sprintf("%064d", i)
		all = append(all, &testFile{
			name: "file-" + strconv.Itoa(i), lines: lines, size: 100,
			container: &pipeline.Container{Id: id, Name: "c" + strconv.Itoa(i), Image: "nginx:1", Labels: []*pipeline.Label{{Key: "app", Value: "shop"}}},
		})
	}
	return all
}

func (f *testFile) message(i int) string { return fmt.Sprintf("%s line %d", f.name, i) }

func (f *testFile) event(i int) *pipeline.Event {
	e := pipeline.EventFromVTPool()
	e.Id = append(e.Id[:0], fmt.Sprintf("%-8.8s%08d", f.name, i)...)
	e.Dataset = pipeline.Dataset_LOG
	e.Timestamp = int64(i)
	e.Container = f.container
	e.Log = pipeline.LogLineFromVTPool()
	e.Log.Message = f.message(i)
	return e
}

// shipTo ships f from where its producer resumes, until its end or an error.
func (f *testFile) shipTo(ctx context.Context, l collector.FileProducer) error {
	m, _ := l.Resume()
	for i := int(m.ReadFrom) / f.size; i < f.lines; i++ {
		at := int64(i+1) * int64(f.size)
		if err := l.Ship(ctx, f.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			return err
		}
	}
	return nil
}

// shipAll ships all files concurrently.
func shipAll(ctx context.Context, s *Shipper, all []*testFile) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, f := range all {
		wg.Go(func() { errs[i] = f.shipTo(ctx, s.File(f.name)) })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

func dnsEvent(i int, c *pipeline.Container) *pipeline.Event {
	e := pipeline.EventFromVTPool()
	e.Id = append(e.Id[:0], fmt.Sprintf("q%015d", i)...)
	e.Dataset = pipeline.Dataset_DNS
	e.Container = c
	e.Source = pipeline.EndpointFromVTPool()
	e.Source.Ip = append(e.Source.Ip[:0], 10, 0, 0, 1)
	e.Source.Container = c
	e.Dns = pipeline.DNSMessageFromVTPool()
	e.Dns.QuestionName = "q" + strconv.Itoa(i) + ".example"
	return e
}

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// safeUpTo returns the End up to which everything of a file is safe.
func safeUpTo(f collector.FileProducer) int64 {
	c, _ := f.Resume()
	return c.End
}

// safePackets returns how many queries and sessions are in Kafka, in the spool, or dropped and counted.
func (s *Shipper) safePackets() (n uint64) {
	for _, d := range []pipeline.Dataset{pipeline.Dataset_DNS, pipeline.Dataset_SESSION} {
		n += s.counters.safe[d].Load()
		for reason := range s.counters.discarded {
			n += s.counters.discarded[reason][d].Load()
		}
	}
	return n
}
