package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// A harness is a broker with tidegate's topics and a producer of batches.
type harness struct {
	testing.TB
	client    *kafka.Client
	epoch     uint64
	sequences map[int]uint64 // by partition
	events    int
}

var discardLog = slog.New(slog.NewTextHandler(logTo(), nil))

// logTo returns where engines log in tests: nowhere, unless TIDEGATE_TEST_LOG is set.
func logTo() io.Writer {
	if os.Getenv("TIDEGATE_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}

func newHarness(t testing.TB, partitions int, assign string) *harness {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return harnessAt(t, c.ListenAddrs(), partitions, assign)
}

func harnessAt(t testing.TB, brokers []string, partitions int, assign string) *harness {
	t.Helper()
	client := connect(t, brokers, partitions, assign)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for n := 0; ; n++ {
		_, err := client.EnsureTopics(ctx)
		if err == nil {
			break
		}
		if n > 20 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return &harness{TB: t, client: client, epoch: 7, sequences: map[int]uint64{}}
}

func connect(t testing.TB, brokers []string, partitions int, assign string) *kafka.Client {
	t.Helper()
	cfg := kafka.Default()
	cfg.Brokers, cfg.Partitions, cfg.Assign = brokers, partitions, assign
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

var testCollector = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}

// testStart is the time of the first event, ns since 1970.
var testStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()

// event returns the n-th event: a log line. Every tenth is a match for badLineDetector.
func event(n int) *pipeline.Event {
	e := &pipeline.Event{
		Id: make([]byte, 16), Dataset: pipeline.Dataset_LOG, Timestamp: testStart + int64(n)*int64(time.Second), ContainerIndex: uint32(n%2) + 1,
		Source: &pipeline.Endpoint{Ip: netip.MustParseAddr("10.0.0.1").AsSlice(), Port: 4711},
		Log:    &pipeline.LogLine{Message: fmt.Sprintf("line %d of an ordinary log", n), Stream: "stdout", Path: "/var/log/x", Offset: uint64(n) * 80},
	}
	binary.BigEndian.PutUint64(e.Id[8:], uint64(n))
	if n%10 == 3 {
		e.Log.Message = fmt.Sprintf("bad g%d", n%7)
	}
	return e
}

// batch returns the next batch of a partition, with n new events.
func (r *harness) batch(partition, n int) *pipeline.Batch {
	r.sequences[partition]++
	b := &pipeline.Batch{
		Schema: 1, Collector: testCollector[:], Epoch: r.epoch, Partition: uint32(partition), Sequence: r.sequences[partition],
		Shipped: testStart + int64(r.events+n)*int64(time.Second) + 5e8,
		Host:    &pipeline.Host{Name: "host1", Id: "h1", Cluster: "test"},
		Containers: []*pipeline.Container{
			{Id: strings.Repeat("a", 64), Name: "web", Image: "nginx:1.25"}, {Id: strings.Repeat("b", 64), Name: "db", Image: "mariadb"},
		},
	}
	for range n {
		b.Events = append(b.Events, event(r.events))
		r.events++
	}
	return b
}

func encode(t testing.TB, b *pipeline.Batch) []byte {
	t.Helper()
	v, err := b.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (r *harness) produce(partition int, values ...[]byte) {
	r.Helper()
	var records []kafkago.Record
	for _, v := range values {
		records = append(records, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(v)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := r.client.Produce(ctx, r.client.Topic(pipeline.TopicEvents), partition, records...); err != nil {
		r.Fatal(err)
	}
}

// send produces batches of n new events each.
func (r *harness) send(partition, batches, n int) {
	r.Helper()
	for range batches {
		r.produce(partition, encode(r, r.batch(partition, n)))
	}
}

func (r *harness) committed(partition int) (int64, string) {
	r.Helper()
	topic := r.client.Topic(pipeline.TopicEvents)
	f, err := r.client.Kafka().OffsetFetch(context.Background(), &kafkago.OffsetFetchRequest{GroupID: "tidegate-engine", Topics: map[string][]int{topic: {partition}}})
	if err != nil {
		r.Fatal(err)
	}
	if len(f.Topics[topic]) == 0 {
		return -1, ""
	}
	p := f.Topics[topic][0]
	return p.CommittedOffset, p.Metadata
}

func (r *harness) commit(partition int, offset int64, metadata string) {
	r.Helper()
	topic := r.client.Topic(pipeline.TopicEvents)
	f, err := r.client.Kafka().OffsetCommit(context.Background(), &kafkago.OffsetCommitRequest{
		GroupID: "tidegate-engine", GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{topic: {{Partition: partition, Offset: offset, Metadata: metadata}}},
	})
	if err != nil {
		r.Fatal(err)
	}
	if err := f.Topics[topic][0].Error; err != nil {
		r.Fatal(err)
	}
}

// read returns all messages of one partition of a topic.
func (r *harness) read(name string, partition int) []kafkago.Message {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	topic := r.client.Topic(name)
	ends, err := r.client.EndOffsets(ctx, topic, []int{partition})
	if err != nil {
		r.Fatal(err)
	}
	reader := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: r.client.Brokers(), Topic: topic, Partition: partition, MaxWait: 50 * time.Millisecond,
	})
	defer reader.Close()
	var out []kafkago.Message
	for next := int64(0); next < ends[partition]; {
		m, err := reader.ReadMessage(ctx)
		if err != nil {
			r.Fatalf("read %s/%d from offset %d: %v", topic, partition, next, err)
		}
		out, next = append(out, m), m.Offset+1
	}
	return out
}

// start runs an engine until the returned function is called.
func (r *harness) start(store Store, bundle *pipeline.Bundle, change func(*Config, *Deps)) (*Engine, func()) {
	r.Helper()
	cfg := Default()
	cfg.Linger, cfg.CommitIdleAfter, cfg.DedupLookback = 20*time.Millisecond, 150*time.Millisecond, 10*365*24*time.Hour
	deps := Deps{Kafka: r.client, Store: store, Bundle: func() *pipeline.Bundle { return bundle }}
	if change != nil {
		change(&cfg, &deps)
	}
	e, err := New(cfg, deps, discardLog, nil)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				r.Errorf("engine ended: %v", err)
			}
		})
	}
	r.Cleanup(stop)
	return e, stop
}

// waitUntil waits until f reports true, for two minutes at most: on a busy machine the embedded ClickHouse
// has taken more than 30 s for an insert after its clients were killed.
func waitUntil(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// badLineDetector matches log lines of the form "bad <group>".
type badLineDetector struct{}

func (badLineDetector) Evaluate(block []*pipeline.Event) {
	for _, e := range block {
		if g, ok := strings.CutPrefix(e.GetLog().GetMessage(), "bad "); ok {
			e.Verdicts = append(e.Verdicts, &pipeline.Verdict{
				Detector: "test", Rule: "bad_line", Version: "1", Severity: pipeline.Severity_HIGH, Group: g, Title: "Bad line", Evidence: e.Log.Message,
			})
		}
	}
}

var testBundle = &pipeline.Bundle{Version: "v1", Detectors: []pipeline.Detector{badLineDetector{}}}

// checkExactlyOnce checks that the rows are those of the events 0 to n-1, each once.
func checkExactlyOnce(t testing.TB, rows []fakeRow, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range rows {
		seen[r.id]++
	}
	for i := range n {
		id := fmt.Sprintf("%x", event(i).Id)
		if seen[id] != 1 {
			t.Errorf("event %d is stored %d times", i, seen[id])
		}
		delete(seen, id)
	}
	if len(seen) > 0 {
		t.Errorf("%d rows are of no event that was sent", len(seen))
	}
}
