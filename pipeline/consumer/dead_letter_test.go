package consumer

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// newLimitedBroker returns a client of a broker that rejects requests whose records are longer than limit,
// and the address of the broker.
func newLimitedBroker(t *testing.T, limit *atomic.Int64) (*kafka.Client, []string) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		rejected := false
		for _, topic := range produce.Topics {
			topicResponse := kmsg.NewProduceResponseTopic()
			topicResponse.Topic, topicResponse.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				rejected = rejected || int64(len(partition.Records)) > limit.Load()
				partitionResponse := kmsg.NewProduceResponseTopicPartition()
				partitionResponse.Partition, partitionResponse.ErrorCode = partition.Partition, kerr.MessageTooLarge.Code
				topicResponse.Partitions = append(topicResponse.Partitions, partitionResponse)
			}
			response.Topics = append(response.Topics, topicResponse)
		}
		return response, nil, rejected
	})
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign = cluster.ListenAddrs(), kafka.AssignStatic
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client, cluster.ListenAddrs()
}

// TestDeadLetterIsCutUntilItFits writes a record with a large key and a large value to topics that take less
// and less.
func TestDeadLetterIsCutUntilItFits(t *testing.T) {
	var limit atomic.Int64
	client, _ := newLimitedBroker(t, &limit)
	rnd := rand.NewChaCha8([32]byte{1})
	deadLetter := DeadLetter{
		Topic: "tidegate.events", Partition: 1, Offset: 7, Stage: "engine", Reason: "decode", Err: errors.New("e"),
		Key: make([]byte, 1_500_000), Value: make([]byte, 1_000_000),
	}
	_, _ = rnd.Read(deadLetter.Key)
	_, _ = rnd.Read(deadLetter.Value)
	for _, test := range []struct {
		limit      int64
		key, value int // lengths of what is written
		want       error
	}{
		{4 << 20, 1_500_000, 1_000_000, nil}, // the key is longer than its bound
		{500_000, 1_500_000, 250_000, nil},
		{100_000, 1_500_000, 31_250, nil},
		{10_000, 8192, 0, nil},
		{1000, 512, 0, nil},
		{100, 0, 0, ErrUnwritable},
	} {
		limit.Store(test.limit)
		before, err := client.EndOffsets(t.Context(), client.Topic(pipeline.TopicDeadLetter), []int{0})
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteDeadLetter(t.Context(), client, quiet, deadLetter); !errors.Is(err, test.want) {
			t.Errorf("limit %d: %v, want %v", test.limit, err, test.want)
		}
		if test.want == nil {
			checkDeadLetter(t, client, before[0], deadLetter, min(test.key, maxDeadLetterKey), test.value)
		}
	}
}

// checkDeadLetter requires the first bytes of the key and of the value of a dead letter at an offset of its topic.
func checkDeadLetter(t *testing.T, client *kafka.Client, offset int64, want DeadLetter, key, value int) {
	t.Helper()
	partition := &Partition{cfg: Config{Client: client, Topic: client.Topic(pipeline.TopicDeadLetter)}, log: quiet}
	record, found, err := partition.ReadRecord(t.Context(), offset)
	if err != nil || !found || !bytes.Equal(record.Key, want.Key[:key]) || !bytes.Equal(record.Value, want.Value[:value]) {
		t.Errorf("%d bytes of a key, %d of a value, %t, %v, want %d and %d", len(record.Key), len(record.Value), found, err, key, value)
	}
}

// TestDeadLetterIsWholeAfterATemporaryError: only a record that the topic rejects is cut.
func TestDeadLetterIsWholeAfterATemporaryError(t *testing.T) {
	cluster, partition, client := newBroker(t)
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		produce := request.(*kmsg.ProduceRequest)
		response := produce.ResponseKind().(*kmsg.ProduceResponse)
		part := kmsg.NewProduceResponseTopicPartition()
		part.ErrorCode = kerr.NotEnoughReplicas.Code
		topic := kmsg.NewProduceResponseTopic()
		topic.Topic = produce.Topics[0].Topic
		topic.Partitions = append(topic.Partitions, part)
		response.Topics = append(response.Topics, topic)
		return response, nil, true
	})
	log, logged := newLog()
	deadLetter := DeadLetter{Topic: partition.Topic(), Key: []byte("key"), Value: []byte("value")}
	if err := WriteDeadLetter(t.Context(), client, log, deadLetter); err != nil {
		t.Fatal(err)
	}
	checkDeadLetter(t, client, 0, deadLetter, 3, 5)
	if got := logged.String(); !strings.HasPrefix(got, `level=WARN msg=retrying what="write a dead letter" attempt=1 err=`) || strings.Count(got, "\n") != 1 {
		t.Errorf("logged %s", got)
	}
}

// TestDeadLetterTopicIsCreatedAgain deletes the topic of dead letters between two of them.
func TestDeadLetterTopicIsCreatedAgain(t *testing.T) {
	var limit atomic.Int64
	limit.Store(1 << 20)
	client, addrs := newLimitedBroker(t, &limit)
	deadLetter := DeadLetter{Topic: "tidegate.events", Value: []byte("first")}
	if err := WriteDeadLetter(t.Context(), client, quiet, deadLetter); err != nil {
		t.Fatal(err)
	}
	direct, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(direct.Close)
	topic := client.Topic(pipeline.TopicDeadLetter)
	deletion := kmsg.NewDeleteTopicsRequest()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = &topic
	deletion.TopicNames, deletion.Topics = []string{topic}, append(deletion.Topics, named)
	if _, err := deletion.RequestWith(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	deadLetter.Value = []byte("second")
	if err := WriteDeadLetter(t.Context(), client, quiet, deadLetter); err != nil {
		t.Fatal(err)
	}
	direct.AddConsumeTopics(topic)
	fetches := direct.PollFetches(t.Context())
	found := false
	fetches.EachRecord(func(record *kgo.Record) { found = found || bytes.Equal(record.Value, deadLetter.Value) })
	if !found {
		t.Errorf("the topic was not made again: %v", fetches.Errors())
	}
}

// TestMissingDeadLetterTopicIsCreated writes a dead letter by a client that knows from its metadata that the
// topic does not exist.
func TestMissingDeadLetterTopicIsCreated(t *testing.T) {
	var limit atomic.Int64
	limit.Store(1 << 20)
	_, addrs := newLimitedBroker(t, &limit)
	cfg := kafka.Default()
	cfg.Brokers, cfg.TopicPrefix = addrs, "other"
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := WriteDeadLetter(ctx, client, quiet, DeadLetter{Topic: "other.events", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	topic := client.Topic(pipeline.TopicDeadLetter)
	if ends, err := client.EndOffsets(ctx, topic, []int{0}); err != nil || ends[0] != 1 {
		t.Errorf("the topic ends at %v, %v", ends, err)
	}
}
