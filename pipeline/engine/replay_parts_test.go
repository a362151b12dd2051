package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// TestReplayEndsWithItsBlock: at a record behind it, at its last record, where its rest was deleted, and where the log ends before it.
func TestReplayEndsWithItsBlock(t *testing.T) {
	producer := &harness{TB: t, epoch: 1, sequences: map[int]uint64{}}
	const end = 10
	replay := func(chunks ...consumer.Chunk) (*worker, string, error) {
		t.Helper()
		w, logged := newTestWorker(newFakeStore())
		w.dedupSince = time.Unix(0, 0)
		w.cfg.DedupLookback = 0
		w.nextOffset = 5
		out := make(chan consumer.Chunk, len(chunks))
		for _, chunk := range chunks {
			out <- chunk
		}
		close(out)
		w.fetcher = &consumer.Fetcher{C: out}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := w.gatherReplay(ctx, end)
		var offsets []string
		for i := range w.block.messages {
			offsets = append(offsets, fmt.Sprint(w.block.messages[i].record.Offset))
		}
		if _, line, ok := strings.Cut(logged.String(), "level=ERROR msg=\"log ends inside a block that is replayed, the rest of the block is lost\" partition=0 topic=events from=5 end=10 log_end="); ok {
			offsets = append(offsets, "cut at", strings.TrimSpace(line))
		}
		return w, strings.Join(offsets, " "), err
	}
	records := func(offsets ...int64) (list []consumer.Record) {
		for _, offset := range offsets {
			list = append(list, recordOf(t, offset, producer.batch(0, 1)))
		}
		return list
	}
	check := func(what, want string, wantLost uint64, wantLeft int, chunks ...consumer.Chunk) {
		t.Helper()
		w, got, err := replay(chunks...)
		if err != nil || got != want || w.metrics.lost.Load() != wantLost || len(w.records) != wantLeft {
			t.Errorf("%s: %q, %d lost, %d records are left, %v; want %q", what, got, w.metrics.lost.Load(), len(w.records), err, want)
		}
	}
	check("the last record", "5 9", 0, 0, consumer.Chunk{Records: records(5, 9), End: 20, Next: 10})
	check("a record behind", "5 8", 0, 1, consumer.Chunk{Records: records(5, 8, 10), End: 20, Next: 11})
	check("two chunks", "5 9", 0, 0, consumer.Chunk{Records: records(5), End: 20, Next: 6}, consumer.Chunk{Records: records(9), End: 20, Next: 10})
	check("an empty answer", "5 9", 0, 0, consumer.Chunk{Records: records(5), End: 20, Next: 6}, consumer.Chunk{End: 20, Next: 6}, consumer.Chunk{Records: records(9), End: 20, Next: 10})
	check("deleted at the front", "8 9", 3, 0, consumer.Chunk{Lost: 3, End: 9, Next: 8}, consumer.Chunk{Records: records(8, 9), End: 20, Next: 10})
	check("all deleted", "", 5, 0, consumer.Chunk{Lost: 5, End: 20, Next: 10})
	check("cut", "5 cut at 7", 3, 0, consumer.Chunk{Records: records(5), End: 20, Next: 6}, consumer.Chunk{End: 7, Next: 6})
	check("cut in front of what was read", "5 6 cut at 6", 3, 0, consumer.Chunk{Records: records(5, 6), End: 20, Next: 7}, consumer.Chunk{End: 6, Next: 7})
	check("cut before a record", "5 9", 0, 0, consumer.Chunk{Records: records(5), End: 7, Next: 6}, consumer.Chunk{Records: records(9), End: 20, Next: 10})
	check("an answer up to the end", "5 9", 0, 0, consumer.Chunk{End: 10, Next: 5}, consumer.Chunk{Records: records(5, 9), End: 20, Next: 10})
}

// TestRetriesAreCounted, but neither the end of the worker nor that of its ownership.
func TestRetriesAreCounted(t *testing.T) {
	engine := &Engine{metrics: newEngineMetrics(nil)}
	w := &worker{Engine: engine, log: discardLog}
	failures := 2
	if err := w.withRetry(t.Context(), "insert", func() error {
		if failures--; failures >= 0 {
			return errPassing
		}
		return nil
	}); err != nil || retriesOf(t, engine, "insert") != 2 {
		t.Errorf("%v, %v retries", err, retriesOf(t, engine, "insert"))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range map[string]func() error{
		"fenced": func() error {
			return w.withRetry(t.Context(), "insert", func() error { return consumer.ErrFenced })
		},
		"ended": func() error { return w.withRetry(ended, "insert", func() error { return errPassing }) },
	} {
		if err := call(); err == nil || retriesOf(t, engine, "insert") != 2 {
			t.Errorf("%s: %v, %v retries", name, err, retriesOf(t, engine, "insert"))
		}
	}
}

// TestAlertsArePublishedUnderTheirFingerprints; those that the topic rejects are logged and left out.
func TestAlertsArePublishedUnderTheirFingerprints(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	harness := harnessAt(t, cluster.ListenAddrs(), 1, kafka.AssignStatic)
	w, logged := newTestWorker(newFakeStore())
	w.deps.Kafka = harness.client
	if err = w.findAlertsTopic(t.Context()); err != nil {
		t.Fatal(err)
	}
	var revisions []*pipeline.Alert
	for i := range 5 {
		// Two messages exceed the size of a request.
		revisions = append(revisions, &pipeline.Alert{ID: fmt.Sprint("a", i), Fingerprint: "f", Evidence: strings.Repeat("x", maxProduceBytes/2)})
	}
	if err := foldOf(w).publishAlerts(t.Context(), revisions); err != nil {
		t.Fatal(err)
	}
	var got []string
	for partition := range int(w.alertPartitions.Load()) {
		for _, message := range harness.read(pipeline.TopicAlerts, partition) {
			if string(message.Key) != "f" {
				t.Errorf("key %q", message.Key)
			}
			got = append(got, string(message.Value[7:9]))
		}
	}
	if fmt.Sprint(got) != "[a0 a1 a2 a3 a4]" || strings.Contains(logged.String(), "rejected") {
		t.Errorf("published %q: %s", got, logged)
	}

	// A request has as many messages as fit into its size, and at least one.
	var mu sync.Mutex
	var requests []uint32
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		const countAt = 57 // in a record batch
		requests = append(requests, binary.BigEndian.Uint32(request.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records[countAt:]))
		return nil, nil, false
	})
	var sizes []*pipeline.Alert
	for i, size := range []int{maxProduceBytes / 5, maxProduceBytes / 5, maxProduceBytes / 2, maxProduceBytes, maxProduceBytes * 2, 1, 1, 1} {
		sizes = append(sizes, &pipeline.Alert{ID: fmt.Sprint("b", i), Fingerprint: "f", Evidence: strings.Repeat("x", size)})
	}
	if err := foldOf(w).publishAlerts(t.Context(), sizes); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if got := fmt.Sprint(requests); got != "[3 1 1 3]" {
		t.Errorf("requests of %s messages", got)
	}
	mu.Unlock()

	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response, isRejected := rejectTopic(request, harness.client.Topic(pipeline.TopicAlerts))
		return response, nil, isRejected
	})
	if err := foldOf(w).publishAlerts(t.Context(), revisions[:1]); err != nil || strings.Count(logged.String(), "alerts topic rejected alerts") != 1 {
		t.Errorf("%v: %s", err, logged)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := foldOf(w).publishAlerts(ended, revisions[:1]); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("an ended worker: %v", err)
	}
}
