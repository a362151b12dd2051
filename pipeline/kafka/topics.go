package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/segmentio/kafka-go"

	"tidegate/pipeline"
)

// The largest record batch that a topic takes, compressed. A collector's batches stay below 1 MiB before compression; a dead
// letter is one of them with headers around it.
const (
	maxEventsMessage     = 2 << 20
	maxDeadLetterMessage = 4 << 20
)

// EnsureTopics creates those of our topics (by their short names; none: all of them) that do not exist, and tells how many
// partitions each has. A topic that exists is left as it is, and its number of partitions is what counts.
func (c *Client) EnsureTopics(ctx context.Context, names ...string) (map[string]int, error) {
	if len(names) == 0 {
		names = []string{pipeline.TopicEvents, pipeline.TopicAlerts, pipeline.TopicDeadLetter}
	}
	counts, missing, err := c.findTopics(ctx, names)
	if err != nil || len(missing) == 0 {
		return counts, err
	}
	request := &kafka.CreateTopicsRequest{}
	for _, name := range missing {
		request.Topics = append(request.Topics, c.topicConfig(name))
	}
	response, err := c.kafka.CreateTopics(ctx, request)
	if err != nil {
		return nil, c.wrapError("create topics", err)
	}
	for topic, err := range response.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) { // another of us was quicker
			return nil, c.wrapError("create topic "+topic, err)
		}
	}
	if counts, missing, err = c.findTopics(ctx, names); err != nil {
		return nil, err
	}
	if len(missing) > 0 { // the other brokers have not heard of it yet
		return nil, c.wrapError("find topic "+c.Topic(missing[0]), kafka.UnknownTopicOrPartition)
	}
	return counts, nil
}

func (c *Client) topicConfig(name string) kafka.TopicConfig {
	t := kafka.TopicConfig{Topic: c.Topic(name), NumPartitions: 1, ReplicationFactor: c.cfg.ReplicationFactor}
	limit := func(n int) {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(n)})
	}
	switch name {
	case pipeline.TopicEvents:
		t.NumPartitions = c.cfg.Partitions
		limit(maxEventsMessage)
	case pipeline.TopicDeadLetter:
		limit(maxDeadLetterMessage)
	}
	return t
}

// Partitions asks how many partitions a topic (its full name) has. It does not create it.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	n, err := c.partitionCounts(ctx, []string{topic})
	if err != nil {
		return 0, err
	}
	if n[0] == 0 {
		return 0, c.wrapError("find topic "+topic, kafka.UnknownTopicOrPartition)
	}
	return n[0], nil
}

// findTopics gives the partitions of those names that exist, and those that do not.
func (c *Client) findTopics(ctx context.Context, names []string) (counts map[string]int, missing []string, err error) {
	topics := make([]string, len(names))
	for i, name := range names {
		topics[i] = c.Topic(name)
	}
	n, err := c.partitionCounts(ctx, topics)
	if err != nil {
		return nil, nil, err
	}
	counts = make(map[string]int, len(names))
	for i, name := range names {
		if n[i] == 0 {
			missing = append(missing, name)
		} else {
			counts[name] = n[i]
		}
	}
	return counts, missing, nil
}

// partitionCounts gives the number of partitions of each topic, 0 where there is none. It asks on a connection of its own: the transport
// answers such questions from a picture that may be seconds old, in which a topic that was just created is missing.
func (c *Client) partitionCounts(ctx context.Context, topics []string) ([]int, error) {
	fresh := c.newTransport()
	defer fresh.CloseIdleConnections()
	m, err := c.newKafkaClient(fresh).Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return nil, c.wrapError("ask for topics", err)
	}
	counts := make([]int, len(topics))
	for i, topic := range topics {
		for _, t := range m.Topics {
			if t.Name != topic || errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
				continue
			}
			if t.Error != nil {
				return nil, c.wrapError("ask for topic "+topic, t.Error)
			}
			if len(t.Partitions) > maxPartitions {
				return nil, c.wrapError("ask for topic "+topic, fmt.Errorf("it has %d partitions, more than %d", len(t.Partitions), maxPartitions))
			}
			counts[i] = len(t.Partitions)
		}
	}
	return counts, nil
}
