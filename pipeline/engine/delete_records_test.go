package engine

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// deleteRecordsBefore deletes the messages of partition 0 before offset, as retention does. kafka-go does not
// have this request.
func deleteRecordsBefore(t *testing.T, h *harness, topic string, offset int64) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(h.client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	request := kmsg.NewPtrDeleteRecordsRequest()
	partition := kmsg.NewDeleteRecordsRequestTopicPartition()
	partition.Offset = offset
	requestTopic := kmsg.NewDeleteRecordsRequestTopic()
	requestTopic.Topic = topic
	requestTopic.Partitions = append(requestTopic.Partitions, partition)
	request.Topics = append(request.Topics, requestTopic)
	request.TimeoutMillis = 5000
	if _, err := request.RequestWith(context.Background(), client); err != nil {
		t.Fatal(err)
	}
}
