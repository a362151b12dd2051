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

// newHarness returns a harness whose broker does not run yet. Its batches are small and its times short.
func newHarness(t *testing.T) *harness {
	t.Helper()
	harness := &harness{t: t, port: freePort(t), data: t.TempDir(), state: t.TempDir()}
	var err error
	if harness.id, err = collector.LoadID(harness.state); err != nil {
		t.Fatal(err)
	}
	harness.cfg = Default()
	harness.cfg.StateDir, harness.cfg.Host, harness.cfg.Cluster = harness.state, "host-1", "test"
	harness.cfg.Linger, harness.cfg.SpoolAfter = 5*time.Millisecond, 50*time.Millisecond
	harness.cfg.BatchEvents, harness.cfg.BatchBytes = 50, 64<<10
	harness.kcfg = kafka.Default()
	harness.kcfg.Brokers, harness.kcfg.Timeout = []string{"127.0.0.1:" + strconv.Itoa(harness.port)}, 2*time.Second
	t.Cleanup(harness.stopBroker)
	return harness
}

// freePort returns a TCP port of the loopback address that nothing listens on.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// startBroker starts the broker with the topics and data that an earlier one has left.
func (h *harness) startBroker() {
	h.t.Helper()
	var err error
	h.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(h.port), kfake.DataDir(h.data))
	if err != nil {
		h.t.Fatal(err)
	}
}

// stopBroker stops the broker, if it runs. Its data stay.
func (h *harness) stopBroker() {
	if h.broker != nil {
		h.broker.Close()
		h.broker = nil
	}
}

// testLog returns a logger that discards everything, unless SHIP_LOG is set.
func testLog() *slog.Logger {
	if os.Getenv("SHIP_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.DiscardHandler)
}

// startShipper starts the next shipper on the state folder.
func (h *harness) startShipper(points failpoints) *Shipper {
	h.t.Helper()
	shipper, err := newShipper(h.cfg, h.kcfg, h.id, testLog(), prometheus.NewRegistry(), points)
	if err != nil {
		h.t.Fatal(err)
	}
	return shipper
}

// kill ends a shipper as kill -9 does: nothing that is in memory is sent or written.
func (s *Shipper) kill() {
	s.closing.Store(true)
	close(s.stop)
	s.stopWorkers()
	_ = s.closeFiles(false)
}

// closeShipper closes a shipper and returns its ledger, which must balance.
func (h *harness) closeShipper(shipper *Shipper) Ledger {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := shipper.Close(ctx); err != nil {
		h.t.Errorf("close: %v", err)
	}
	ledger := shipper.Ledger()
	if !ledger.IsBalanced() {
		h.t.Errorf("the ledger does not balance: %+v", ledger)
	}
	return ledger
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
	client, err := kafka.New(h.kcfg)
	if err != nil {
		h.t.Fatal(err)
	}
	defer client.Close()
	topic := client.Topic(pipeline.TopicEvents)
	partitions, err := client.Partitions(h.t.Context(), topic)
	if err != nil {
		h.t.Fatal(err)
	}
	var all []kafkaMessage
	for partition := range partitions {
		all = append(all, h.readPartition(client, topic, partition)...)
	}
	return all
}

// readPartition returns the batches of one partition, from its first to its last.
func (h *harness) readPartition(client *kafka.Client, topic string, partition int) (all []kafkaMessage) {
	conn, err := client.Dialer().DialLeader(h.t.Context(), "tcp", client.Brokers()[0], topic, partition)
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
	reader := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: client.Brokers(), Topic: topic, Partition: partition, Dialer: client.Dialer(),
		MaxBytes: 32 << 20, MaxWait: 100 * time.Millisecond,
	})
	defer reader.Close()
	for {
		ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
		message, err := reader.ReadMessage(ctx)
		cancel()
		if err != nil {
			h.t.Fatal(err)
		}
		batch := &pipeline.Batch{}
		if err := batch.UnmarshalVT(message.Value); err != nil {
			h.t.Fatalf("partition %d offset %d: %v", partition, message.Offset, err)
		}
		if batch.Partition != uint32(partition) {
			h.t.Errorf("a batch of partition %d is in %d", batch.Partition, partition)
		}
		pipeline.ResolveReferences(batch)
		all = append(all, kafkaMessage{partition, len(message.Value), batch})
		if message.Offset+1 >= end {
			return all
		}
	}
}

// A dedupWindow holds the sequences of one (collector, epoch, partition) that a reader of the topic has seen.
type dedupWindow struct {
	high uint64 // the highest
	seen uint64 // bit i: high-i was seen
}

// isNew reports whether seq was not seen before, and records it. A sequence below the window counts as seen.
func (w *dedupWindow) isNew(seq uint64) bool {
	if seq > w.high {
		if distance := seq - w.high; distance < 64 {
			w.seen <<= distance
		} else {
			w.seen = 0
		}
		w.seen |= 1
		w.high = seq
		return true
	}
	distance := w.high - seq
	if distance >= 64 || w.seen&(1<<distance) != 0 {
		return false
	}
	w.seen |= 1 << distance
	return true
}

// deduplicatedEvents returns the events of the topic. It drops repeated batches as the engine does, and
// counts them.
func (h *harness) deduplicatedEvents() (events []*pipeline.Event, repeats int) {
	type producer struct {
		collector string
		epoch     uint64
		partition int
	}
	windows := map[producer]*dedupWindow{}
	for _, message := range h.messages() {
		key := producer{string(message.batch.Collector), message.batch.Epoch, message.partition}
		if windows[key] == nil {
			windows[key] = &dedupWindow{}
		}
		if windows[key].isNew(message.batch.Sequence) {
			events = append(events, message.batch.Events...)
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
	for _, event := range events {
		if event.Log != nil {
			times[event.Log.Message]++
		}
	}
	bad := 0
	report := func(format string, args ...any) {
		if bad++; bad < 10 {
			h.t.Errorf(format, args...)
		}
	}
	for _, file := range files {
		for i := range file.lines {
			text := file.message(i)
			if times[text] != 1 {
				report("%s: %d times", text, times[text])
			}
			delete(times, text)
		}
	}
	for text, count := range times {
		report("%s: %d times, never written", text, count)
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

// testFiles returns files of 100 bytes a line, each of another container.
func testFiles(count, lines int) (all []*testFile) {
	for i := range count {
		id := fmt.Sprintf("%064d", i)
		all = append(all, &testFile{
			name:  "file-" + strconv.Itoa(i),
			lines: lines,
			size:  100,
			container: &pipeline.Container{
				Id:     id,
				Name:   "c" + strconv.Itoa(i),
				Image:  "nginx:1",
				Labels: []*pipeline.Label{{Key: "app", Value: "shop"}},
			},
		})
	}
	return all
}

func (f *testFile) message(i int) string { return fmt.Sprintf("%s line %d", f.name, i) }

func (f *testFile) event(i int) *pipeline.Event {
	event := pipeline.EventFromVTPool()
	event.Id = append(event.Id[:0], fmt.Sprintf("%-8.8s%08d", f.name, i)...)
	event.Dataset = pipeline.Dataset_LOG
	event.Timestamp = int64(i)
	event.Container = f.container
	event.Log = pipeline.LogLineFromVTPool()
	event.Log.Message = f.message(i)
	return event
}

// shipTo ships f from where its producer resumes, until its end or an error.
func (f *testFile) shipTo(ctx context.Context, producer collector.FileProducer) error {
	checkpoint, _ := producer.Resume()
	for i := int(checkpoint.ReadFrom) / f.size; i < f.lines; i++ {
		at := int64(i+1) * int64(f.size)
		end := collector.Checkpoint{End: at, ReadFrom: at}
		if err := producer.Wait(ctx, f.container, end); err != nil {
			return err
		}
		if err := producer.Ship(ctx, f.event(i), end); err != nil {
			return err
		}
	}
	return nil
}

// shipAll ships all files concurrently.
func shipAll(ctx context.Context, shipper *Shipper, all []*testFile) error {
	var wg sync.WaitGroup
	errs := make([]error, len(all))
	for i, file := range all {
		wg.Go(func() { errs[i] = file.shipTo(ctx, shipper.File(file.name)) })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return errs[i]
	}
	return nil
}

// dnsEvent returns the query number i, for the name qi.example.
func dnsEvent(i int, container *pipeline.Container) *pipeline.Event {
	event := pipeline.EventFromVTPool()
	event.Id = append(event.Id[:0], fmt.Sprintf("q%015d", i)...)
	event.Dataset = pipeline.Dataset_DNS
	event.Container = container
	event.Source = pipeline.EndpointFromVTPool()
	event.Source.Ip = append(event.Source.Ip[:0], 10, 0, 0, 1)
	event.Source.Container = container
	event.Dns = pipeline.DNSMessageFromVTPool()
	event.Dns.QuestionName = "q" + strconv.Itoa(i) + ".example"
	return event
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
func safeUpTo(producer collector.FileProducer) int64 {
	checkpoint, _ := producer.Resume()
	return checkpoint.End
}

// safePackets returns how many queries and sessions are in Kafka, in the spool, or dropped and counted.
func (s *Shipper) safePackets() (sum uint64) {
	for _, dataset := range []pipeline.Dataset{pipeline.Dataset_DNS, pipeline.Dataset_SESSION} {
		sum += s.counters.safe[dataset].Load()
		for reason := range s.counters.discarded {
			sum += s.counters.discarded[reason][dataset].Load()
		}
	}
	return sum
}
