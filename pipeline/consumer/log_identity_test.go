package consumer

import (
	"context"
	"errors"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// produceOne appends n batches of one record each.
func produceOne(t *testing.T, client *kafka.Client, topic string, n int) {
	t.Helper()
	for range n {
		record := kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(make([]byte, 1000))}
		if _, err := client.Produce(t.Context(), topic, 0, record); err != nil {
			t.Fatal(err)
		}
	}
}

// replaceTopic deletes the events topic and creates it again.
func replaceTopic(t *testing.T, client *kafka.Client) {
	t.Helper()
	direct, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	topic := client.Topic(pipeline.TopicEvents)
	deletion := kmsg.NewDeleteTopicsRequest()
	named := kmsg.NewDeleteTopicsRequestTopic()
	named.Topic = &topic
	deletion.TopicNames, deletion.Topics = []string{topic}, append(deletion.Topics, named)
	if _, err := deletion.RequestWith(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnsureTopics(t.Context(), pipeline.TopicEvents); err != nil {
		t.Fatal(err)
	}
}

// TestFetcherEndsWhenTheLogIsReplaced: the new log is shorter than what was read, or longer. The records that were
// not read are reported as lost, as far as the fetcher knows of them.
func TestFetcherEndsWhenTheLogIsReplaced(t *testing.T) {
	for name, records := range map[string]int{"empty": 0, "shorter": 5, "longer": 60} {
		t.Run(name, func(t *testing.T) {
			partition, client := newPartition(t)
			produceOne(t, client, partition.Topic(), 40)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			// The budget stops the fetcher within the log.
			fetcher := partition.Fetch(ctx, 0, FetchConfig{MaxBytes: 1, PrefetchBytes: 10_000, MaxWait: 100 * time.Millisecond})
			read := int64(0)
			for read < 5 {
				chunk := <-fetcher.C
				read = chunk.Next
				fetcher.Consumed(chunk.Bytes)
			}
			time.Sleep(minCheckInterval + longPause)
			replaceTopic(t, client)
			produceOne(t, client, partition.Topic(), records)

			lost := int64(0)
			for chunk := range fetcher.C {
				fetcher.Consumed(chunk.Bytes)
				read += int64(len(chunk.Records))
				lost += chunk.Lost
			}
			if err := fetcher.Err(); !errors.Is(err, ErrLogReplaced) {
				t.Fatalf("ended with %v", err)
			}
			if read+lost != 40 || lost == 0 {
				t.Errorf("%d records were read, %d are lost of 40", read, lost)
			}
		})
	}
}

// TestFetcherStaysWithItsLog: records that retention removes, also all that were read, are no other log.
func TestFetcherStaysWithItsLog(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	identity := &logIdentity{}
	if err := identity.begin(ctx, partition, 10); err != nil || identity.anchor == (logMark{}) {
		t.Fatalf("anchor %+v, %v", identity.anchor, err)
	}
	direct, err := kgo.NewClient(kgo.SeedBrokers(client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	for _, before := range []int64{5, 10} {
		request := kmsg.NewPtrDeleteRecordsRequest()
		topic := kmsg.NewDeleteRecordsRequestTopic()
		topic.Topic = partition.Topic()
		part := kmsg.NewDeleteRecordsRequestTopicPartition()
		part.Offset = before
		topic.Partitions = append(topic.Partitions, part)
		request.Topics, request.TimeoutMillis = append(request.Topics, topic), 5000
		if _, err := request.RequestWith(ctx, direct); err != nil {
			t.Fatal(err)
		}
		identity.isInDoubt = true
		if err := identity.compare(ctx, partition); err != nil {
			t.Errorf("records before %d are deleted: %v", before, err)
		}
	}
}

// TestLogIsReplacedAfterRepeatedAnswers: after a change of its leader a partition may know its end a moment too late.
// An offset behind the end belongs to another log only if several answers in a row say so; the end itself never does.
func TestLogIsReplacedAfterRepeatedAnswers(t *testing.T) {
	partition, client := newPartition(t)
	produceOne(t, client, partition.Topic(), 10)
	for next, isBehind := range map[int64]bool{10: false, 11: true, 500: true} {
		loop := &fetchLoop{partition: partition, next: next}
		for answer := range 2 * answersBehindEnd {
			err := loop.skipExpired(t.Context(), kafkago.OffsetOutOfRange)
			if want := isBehind && answer+1 >= answersBehindEnd; errors.Is(err, ErrLogReplaced) != want || err == nil {
				t.Errorf("offset %d, answer %d: %v, want a replaced log: %t", next, answer+1, err, want)
			}
			if !loop.identity.isInDoubt || loop.pending.Lost != 0 || loop.next != next {
				t.Errorf("offset %d, answer %d: no doubt, or %d records are lost", next, answer+1, loop.pending.Lost)
			}
		}
	}
}
