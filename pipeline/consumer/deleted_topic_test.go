package consumer

import (
	"errors"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// TestDeletedTopicIsNotCreatedByAGroup: a broker that creates topics on request would create it with a default number
// of partitions. The group reads it when it is created by the configuration.
func TestDeletedTopicIsNotCreatedByAGroup(t *testing.T) {
	lookOften(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(t.TempDir()), kfake.AllowAutoTopicCreation(),
		kfake.DefaultNumPartitions(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	var mu sync.Mutex
	asked, creating := 0, 0 // requests for metadata, and how many of them create topics
	cluster.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		asked++
		if metadata := request.(*kmsg.MetadataRequest); metadata.Version >= 4 && metadata.AllowAutoTopicCreation {
			creating++
		}
		return nil, nil, false
	})
	cfg := kafka.Default()
	cfg.Brokers, cfg.Assign, cfg.Partitions = cluster.ListenAddrs(), kafka.AssignGroup, 3
	client, err := kafka.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	topic := client.Topic(pipeline.TopicEvents)
	read := &assignments{}
	read.start(t, Config{Client: client, Topic: topic, Group: "g"})
	read.wait(t, 3)

	if _, err := client.Kafka().DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		t.Fatal(err)
	}
	read.mu.Lock()
	clear(read.ids)
	read.mu.Unlock()
	time.Sleep(5 * watchInterval) // the group looks for the topic
	if count, err := client.Partitions(t.Context(), topic); !errors.Is(err, kafkago.UnknownTopicOrPartition) {
		t.Errorf("the topic has %d partitions, %v", count, err)
	}
	mu.Lock()
	if asked == 0 || creating > 0 {
		t.Errorf("%d of %d requests for metadata create topics", creating, asked)
	}
	mu.Unlock()

	if _, err := client.EnsureTopics(t.Context()); err != nil {
		t.Fatal(err)
	}
	read.wait(t, 3)
}
