package engine

import (
	"context"
	"encoding/binary"
	"errors"
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
	"tidegate/pipeline/retry"
)

// A harness is a broker with the topics of tidegate, and a producer of batches.
type harness struct {
	testing.TB
	client    *kafka.Client
	epoch     uint64
	sequences map[int]uint64 // the sequence of the last batch, by partition
	events    int            // the events in all batches so far
	produceAt time.Time      // when messages are produced; zero: now

	earlier map[int][]kafkago.Message // messages that were processed and deleted since, by partition
	deleted int                       // the events in messages that were deleted before they were processed

	brokerPIDs []int    // of a broker in a process of its own
	lines      *lineLog // of the engines
}

var discardLog = slog.New(slog.NewTextHandler(logTo(), nil))

// logTo returns the writer of the engine's log. It discards the log unless TIDEGATE_TEST_LOG is set.
func logTo() io.Writer {
	if os.Getenv("TIDEGATE_TEST_LOG") != "" {
		return os.Stderr
	}
	return io.Discard
}

// newHarness returns a harness with an in-memory broker of its own.
func newHarness(t testing.TB, partitions int, assign string) *harness {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return harnessAt(t, cluster.ListenAddrs(), partitions, assign)
}

// harnessAt returns a harness at a broker that runs already, and creates the topics there.
func harnessAt(t testing.TB, brokers []string, partitions int, assign string) *harness {
	t.Helper()
	client := connect(t, brokers, partitions, assign)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for attempt := 0; ; attempt++ {
		_, err := client.EnsureTopics(ctx)
		if err == nil {
			break
		}
		if attempt > 20 {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return &harness{
		TB: t, client: client, epoch: 7, sequences: map[int]uint64{}, earlier: map[int][]kafkago.Message{}, lines: &lineLog{},
	}
}

// connect returns a client that is closed at the end of the test.
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

// event returns the n-th event: a log line. badLineDetector matches every tenth.
func event(n int) *pipeline.Event {
	line := &pipeline.Event{
		Id: make([]byte, 16), Dataset: pipeline.Dataset_LOG,
		Timestamp: testStart + int64(n)*int64(time.Second), ContainerIndex: uint32(n%2) + 1,
		Source: &pipeline.Endpoint{Ip: netip.MustParseAddr("10.0.0.1").AsSlice(), Port: 4711},
		Log: &pipeline.LogLine{
			Message: fmt.Sprintf("line %d of an ordinary log", n), Stream: "stdout", Path: "/var/log/x", Offset: uint64(n) * 80,
		},
	}
	binary.BigEndian.PutUint64(line.Id[8:], uint64(n))
	if n%10 == 3 {
		line.Log.Message = fmt.Sprintf("bad g%d", n%7)
	}
	return line
}

// batch returns the next batch of a partition, with n new events.
func (h *harness) batch(partition, n int) *pipeline.Batch {
	h.sequences[partition]++
	batch := &pipeline.Batch{
		Schema: 1, Collector: testCollector[:], Epoch: h.epoch,
		Partition: uint32(partition), Sequence: h.sequences[partition],
		Shipped: testStart + int64(h.events+n)*int64(time.Second) + 5e8,
		Host:    &pipeline.Host{Name: "host1", Id: "h1", Cluster: "test"},
		Containers: []*pipeline.Container{
			{Id: strings.Repeat("a", 64), Name: "web", Image: "nginx:1.25"},
			{Id: strings.Repeat("b", 64), Name: "db", Image: "mariadb"},
		},
	}
	for range n {
		batch.Events = append(batch.Events, event(h.events))
		h.events++
	}
	return batch
}

func encode(t testing.TB, batch *pipeline.Batch) []byte {
	t.Helper()
	data, err := batch.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// produce appends messages to a partition of the events topic.
func (h *harness) produce(partition int, values ...[]byte) {
	h.Helper()
	var records []kafkago.Record
	at := h.produceAt
	if at.IsZero() {
		at = time.Now()
	}
	for _, value := range values {
		records = append(records, kafkago.Record{Time: at, Value: kafkago.NewBytes(value)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		_, err := h.client.Produce(ctx, h.client.Topic(pipeline.TopicEvents), partition, records...)
		if err == nil {
			return
		}
		// A broker refuses records for a moment when a topic was just created anew.
		if !errors.Is(err, kafkago.NotLeaderForPartition) || retry.Sleep(ctx, 50*time.Millisecond) != nil {
			h.Fatal(err)
		}
		for i, value := range values { // the refused request may have read them
			records[i].Value = kafkago.NewBytes(value)
		}
	}
}

// send produces batches with a number of new events each.
func (h *harness) send(partition, batches, events int) {
	h.Helper()
	for range batches {
		h.produce(partition, encode(h, h.batch(partition, events)))
	}
}

// committed returns the committed offset of a partition, and its metadata: the open intent, if there is one.
func (h *harness) committed(partition int) (offset int64, metadata string) {
	h.Helper()
	return h.committedOf("tidegate-engine", h.client.Topic(pipeline.TopicEvents), partition)
}

// committedOf returns the committed offset of a partition of a topic, and its metadata.
func (h *harness) committedOf(group, topic string, partition int) (offset int64, metadata string) {
	h.Helper()
	response, err := h.client.Kafka().OffsetFetch(context.Background(), &kafkago.OffsetFetchRequest{
		GroupID: group, Topics: map[string][]int{topic: {partition}},
	})
	if err != nil {
		h.Fatal(err)
	}
	if len(response.Topics[topic]) == 0 {
		return -1, ""
	}
	committed := response.Topics[topic][0]
	return committed.CommittedOffset, committed.Metadata
}

// isClosed reports whether a partition is committed up to offset and has no open intent.
func (h *harness) isClosed(partition int, offset int64) bool {
	h.Helper()
	committed, intent := h.committed(partition)
	return committed == offset && intent == ""
}

// areFolded reports whether all signals are folded: the end of each partition is committed without an intent.
func (h *harness) areFolded() bool {
	h.Helper()
	topic := h.client.Topic(pipeline.TopicSignals)
	partitions, err := h.client.Partitions(h.Context(), topic)
	if err != nil {
		return false
	}
	for partition := range partitions {
		_, end := h.bounds(pipeline.TopicSignals, partition)
		offset, metadata := h.committedOf("tidegate-engine"+SignalsGroupSuffix, topic, partition)
		if _, intent, _ := strings.Cut(metadata, " "); end > 0 && (offset < end || intent != "") {
			return false
		}
	}
	return true
}

// waitClosed waits until the first partitions are committed up to offset and have no open intents, and what was written for them to the signals topic
// is folded.
func (h *harness) waitClosed(partitions int, offset int64) {
	h.Helper()
	waitUntil(h, "closed intents", func() bool {
		for partition := range partitions {
			if !h.isClosed(partition, offset) {
				return false
			}
		}
		return h.areFolded()
	})
}

// commit commits an offset with its metadata for the engine's consumer group.
func (h *harness) commit(partition int, offset int64, metadata string) {
	h.Helper()
	h.commitOf("tidegate-engine", h.client.Topic(pipeline.TopicEvents), partition, offset, metadata)
}

// commitOf commits an offset with its metadata for a consumer group without members.
func (h *harness) commitOf(group, topic string, partition int, offset int64, metadata string) {
	h.Helper()
	response, err := h.client.Kafka().OffsetCommit(context.Background(), &kafkago.OffsetCommitRequest{
		GroupID: group, GenerationID: -1,
		Topics: map[string][]kafkago.OffsetCommit{topic: {{Partition: partition, Offset: offset, Metadata: metadata}}},
	})
	if err != nil {
		h.Fatal(err)
	}
	if err := response.Topics[topic][0].Error; err != nil {
		h.Fatal(err)
	}
}

// bounds returns the first offset of a partition of a topic that is stored, and the one behind the last.
func (h *harness) bounds(name string, partition int) (first, end int64) {
	h.Helper()
	topic := h.client.Topic(name)
	list := func(question kafkago.OffsetRequest) (offsets kafkago.PartitionOffsets) {
		waitUntil(h, "the bounds of "+topic, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			response, err := h.client.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{
				Topics: map[string][]kafkago.OffsetRequest{topic: {question}},
			})
			if err != nil || len(response.Topics[topic]) != 1 || response.Topics[topic][0].Error != nil {
				return false
			}
			offsets = response.Topics[topic][0]
			return true
		})
		return offsets
	}
	return list(kafkago.FirstOffsetOf(partition)).FirstOffset, list(kafkago.LastOffsetOf(partition)).LastOffset
}

// read returns all messages of one partition of a topic.
func (h *harness) read(name string, partition int) (messages []kafkago.Message) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	topic := h.client.Topic(name)
	next, end := h.bounds(name, partition)
	reader := kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: h.client.Brokers(), Topic: topic, Partition: partition, MaxWait: 50 * time.Millisecond,
	})
	defer reader.Close()
	if err := reader.SetOffset(next); err != nil {
		h.Fatal(err)
	}
	for next < end {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			h.Fatalf("read %s/%d from offset %d: %v", topic, partition, next, err)
		}
		messages, next = append(messages, message), message.Offset+1
	}
	return messages
}

// readDeadLetters returns the messages of the dead-letter topic, of which there have to be want.
func (h *harness) readDeadLetters(want int) []kafkago.Message {
	h.Helper()
	letters := h.read(pipeline.TopicDeadLetter, 0)
	if len(letters) != want {
		h.Fatalf("%d dead letters, want %d", len(letters), want)
	}
	return letters
}

// start runs an engine until the returned function is called.
func (h *harness) start(store Store, bundle *pipeline.Bundle, change func(*Config, *Deps)) (*Engine, func()) {
	h.Helper()
	cfg := Default()
	cfg.Linger, cfg.CommitIdleAfter = 20*time.Millisecond, 150*time.Millisecond
	cfg.DedupLookback = 10 * 365 * 24 * time.Hour // testStart is in the past
	deps := Deps{Kafka: h.client, Store: store, Bundle: func() *pipeline.Bundle { return bundle }}
	if change != nil {
		change(&cfg, &deps)
	}
	engine, err := New(cfg, deps, slog.New(slog.NewTextHandler(io.MultiWriter(h.lines, logTo()), nil)), nil)
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, folded := make(chan error, 1), make(chan error, 1)
	go func() { folded <- engine.Correlate(ctx) }()
	go func() { done <- errors.Join(engine.Run(ctx), <-folded) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				h.Errorf("engine ended: %v", err)
			}
		})
	}
	h.Cleanup(stop)
	return engine, stop
}

// waitUntil waits until condition reports true, for two minutes at most: on a busy machine the embedded
// ClickHouse has taken more than 30 s for an insert after its clients were killed.
func waitUntil(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("timed out waiting for %s", what)
		}
	}
}

// badLineDetector matches log lines of the form "bad <group>".
type badLineDetector struct{}

func (badLineDetector) Evaluate(block []*pipeline.Event) {
	for _, e := range block {
		if group, ok := strings.CutPrefix(e.GetLog().GetMessage(), "bad "); ok {
			e.Verdicts = append(e.Verdicts, &pipeline.Verdict{
				Detector: "test", Rule: "bad_line", Version: "1", Severity: pipeline.Severity_HIGH,
				Group: group, Title: "Bad line", Evidence: e.Log.Message,
			})
		}
	}
}

var testBundle = &pipeline.Bundle{Version: "v1", Detectors: []pipeline.Detector{badLineDetector{}}}

// checkExactlyOnce checks that the rows are those of the first events, each once.
func checkExactlyOnce(t testing.TB, rows []fakeRow, events int) {
	t.Helper()
	seen := map[string]int{}
	for _, row := range rows {
		seen[row.id]++
	}
	for i := range events {
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
