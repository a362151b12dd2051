package engine

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// deleteRecordsBefore deletes the messages before offset, as retention does. kafka-go has no request for it.
func deleteRecordsBefore(t *testing.T, r *harness, topic string, offset int64) {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(r.client.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = offset
	rt.Partitions = append(rt.Partitions, rp)
	q.Topics = append(q.Topics, rt)
	q.TimeoutMillis = 5000
	if _, err := q.RequestWith(context.Background(), c); err != nil {
		t.Fatal(err)
	}
}
