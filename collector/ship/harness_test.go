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

// A harness is a broker that can go away and come back, a state folder, and one life of a collector after the other.
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
	w := &harness{t: t, port: freePort(t), data: t.TempDir(), state: t.TempDir()}
	var err error
	if w.id, err = collector.LoadID(w.state); err != nil {
		t.Fatal(err)
	}
	w.cfg = Default()
	w.cfg.StateDir, w.cfg.Host, w.cfg.Cluster = w.state, "host-1", "test"
	w.cfg.Linger, w.cfg.SpoolAfter = 5*time.Millisecond, 50*time.Millisecond
	w.cfg.BatchEvents, w.cfg.BatchBytes = 50, 64<<10
	w.kcfg = kafka.Default()
	w.kcfg.Brokers, w.kcfg.Timeout = []string{"127.0.0.1:" + strconv.Itoa(w.port)}, 2*time.Second
	t.Cleanup(w.stopBroker)
	return w
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

func (w *harness) startBroker() {
	w.t.Helper()
	var err error
	w.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(w.port), kfake.DataDir(w.data))
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *harness) stopBroker() {
	if w.broker != nil {
		w.broker.Close()
		w.broker = nil
	}
}

func testLog() *slog.Logger {
	if os.Getenv("SHIP_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// start begins a life.
func (w *harness) start(sm failpoints) *Shipper {
	w.t.Helper()
	s, err := newShipper(w.cfg, w.kcfg, w.id, testLog(), prometheus.NewRegistry(), sm)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// kill ends a life without a word: nothing that is in memory is sent or written.
func (s *Shipper) kill() {
	s.closing.Store(true)
	close(s.stop)
	s.stopWorkers()
	_ = s.closeFiles(false)
}

func (w *harness) close(s *Shipper) Ledger {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		w.t.Errorf("close: %v", err)
	}
	l := s.Ledger()
	if !l.IsBalanced() {
		w.t.Errorf("the ledger does not balance: %+v", l)
	}
	return l
}

// A message is a batch as it stands in Kafka.
type message struct {
	partition int
	bytes     int
	batch     *pipeline.Batch
}

// messages reads everything that is in the events topic.
func (w *harness) messages() []message {
	w.t.Helper()
	c, err := kafka.New(w.kcfg)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	topic := c.Topic(pipeline.TopicEvents)
	n, err := c.Partitions(w.t.Context(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	var all []message
	for p := range n {
		all = append(all, w.partition(c, topic, p)...)
	}
	return all
}

func (w *harness) partition(c *kafka.Client, topic string, p int) (all []message) {
	conn, err := c.Dialer().DialLeader(w.t.Context(), "tcp", c.Brokers()[0], topic, p)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	end, err := conn.ReadLastOffset()
	if err != nil {
		w.t.Fatal(err)
	}
	if end == 0 {
		return nil
	}
	r := kafkago.NewReader(kafkago.ReaderConfig{Brokers: c.Brokers(), Topic: topic, Partition: p, Dialer: c.Dialer(), MaxBytes: 32 << 20, MaxWait: 100 * time.Millisecond})
	defer r.Close()
	for {
		ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
		m, err := r.ReadMessage(ctx)
		cancel()
		if err != nil {
			w.t.Fatal(err)
		}
		b := &pipeline.Batch{}
		if err := b.UnmarshalVT(m.Value); err != nil {
			w.t.Fatalf("partition %d offset %d: %v", p, m.Offset, err)
		}
		if b.Partition != uint32(p) {
			w.t.Errorf("a batch of partition %d lies in %d", b.Partition, p)
		}
		pipeline.ResolveReferences(b)
		all = append(all, message{p, len(m.Value), b})
		if m.Offset+1 >= end {
			return all
		}
	}
}

// A dedupWindow is what a reader of the topic remembers of a (collector, boot, partition): the highest sequence and the 64 up to it.
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

// events are those of the topic, repeats dropped as the engine drops them.
func (w *harness) events() (events []*pipeline.Event, repeats int) {
	type who struct {
		collector string
		boot      uint64
		partition int
	}
	readers := map[who]*dedupWindow{}
	for _, m := range w.messages() {
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

// checkExactlyOnce checks that every line of files is there once and nothing else of them.
func (w *harness) checkExactlyOnce(files ...*file) {
	w.t.Helper()
	times := map[string]int{}
	events, _ := w.events()
	for _, e := range events {
		if e.Log != nil {
			times[e.Log.Message]++
		}
	}
	bad := 0
	complain := func(format string, args ...any) {
		if bad++; bad < 10 {
			w.t.Errorf(format, args...)
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
		w.t.Fatalf("%d lines are wrong", bad)
	}
}

// A file has lines that can be read again and again.
type file struct {
	name      string
	container *pipeline.Container
	lines     int
	size      int // of each
}

func files(n, lines int) (all []*file) {
	for i := range n {
		id := fmt.Sprintf("%064d", i)
		all = append(all, &file{
			name: "file-" + strconv.Itoa(i), lines: lines, size: 100,
			container: &pipeline.Container{Id: id, Name: "c" + strconv.Itoa(i), Image: "nginx:1", Labels: []*pipeline.Label{{Key: "app", Value: "shop"}}},
		})
	}
	return all
}

func (f *file) message(i int) string { return fmt.Sprintf("%s line %d", f.name, i) }

func (f *file) event(i int) *pipeline.Event {
	e := pipeline.EventFromVTPool()
	e.Id = append(e.Id[:0], fmt.Sprintf("%-8.8s%08d", f.name, i)...)
	e.Dataset = pipeline.Dataset_LOG
	e.Timestamp = int64(i)
	e.Container = f.container
	e.Log = pipeline.LogLineFromVTPool()
	e.Log.Message = f.message(i)
	return e
}

// shipTo reads f from where its lane has come to, until its end or an error.
func (f *file) shipTo(ctx context.Context, l collector.FileProducer) error {
	m, _ := l.Resume()
	for i := int(m.ReadFrom) / f.size; i < f.lines; i++ {
		at := int64(i+1) * int64(f.size)
		if err := l.Ship(ctx, f.event(i), collector.Checkpoint{End: at, ReadFrom: at}); err != nil {
			return err
		}
	}
	return nil
}

// shipAll reads all files at once.
func shipAll(ctx context.Context, s *Shipper, all []*file) error {
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

func query(i int, c *pipeline.Container) *pipeline.Event {
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

// eventually waits for a condition.
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
