package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"tidegate/pipeline"
)

// The largest record batch that a topic accepts, compressed. A collector's batches stay below 1 MiB before
// compression; a dead letter holds one of them and headers.
const (
	maxEventsMessage     = 2 << 20
	maxDeadLetterMessage = 4 << 20
	maxBundleMessage     = MaxBundle + 64<<10 // with the headers of the batch and the record
)

// How the engines topic is kept.
const (
	enginesRetention = 7 * 24 * time.Hour
	enginesSegment   = 4 << 20
)

// MaxBundle is the largest value of a record of the bundles topic.
const MaxBundle = 4 << 20

// EnsureTopics creates the topics of tidegate that do not exist, and returns the number of partitions of
// each. names are short names of topics; without names it creates all topics but those of bundles, which not every
// installation has. A topic that exists keeps its number of partitions, even if another one is configured.
func (c *Client) EnsureTopics(ctx context.Context, names ...string) (map[string]int, error) {
	if len(names) == 0 {
		names = []string{pipeline.TopicEvents, pipeline.TopicSignals, pipeline.TopicAlerts, pipeline.TopicDeadLetter}
	}
	counts, missing, err := c.findTopics(ctx, names)
	if err != nil || len(missing) == 0 {
		return counts, err
	}

	// Create the missing topics. Another process may create them at the same time.
	request := &kafka.CreateTopicsRequest{}
	for _, name := range missing {
		request.Topics = append(request.Topics, c.topicConfig(name))
	}
	response, err := c.kafka.CreateTopics(ctx, request)
	if err != nil {
		return nil, c.wrapError("create topics", err)
	}
	for topic, err := range response.Errors {
		if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) { // another process created it
			return nil, c.wrapError("create topic "+topic, err)
		}
	}

	// Read the numbers of partitions, which may be those of the other process.
	if counts, missing, err = c.findTopics(ctx, names); err != nil {
		return nil, err
	}
	if len(missing) > 0 { // the other brokers do not have it yet
		return nil, c.wrapError("find topic "+c.Topic(missing[0]), kafka.UnknownTopicOrPartition)
	}
	return counts, nil
}

func (c *Client) topicConfig(name string) kafka.TopicConfig {
	config := kafka.TopicConfig{Topic: c.Topic(name), NumPartitions: 1, ReplicationFactor: c.cfg.ReplicationFactor}
	set := func(name, value string) {
		config.ConfigEntries = append(config.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
	}
	limit := func(n int) { set("max.message.bytes", strconv.Itoa(n)) }
	switch name {
	case pipeline.TopicEvents:
		config.NumPartitions = c.cfg.Partitions
		limit(maxEventsMessage)
	case pipeline.TopicSignals:
		// The times of its records are compared with each other, and come from one clock.
		config.NumPartitions = c.cfg.Partitions
		set("message.timestamp.type", "LogAppendTime")
	case pipeline.TopicDeadLetter:
		limit(maxDeadLetterMessage)
	case pipeline.TopicBundles:
		// The embedded broker applies its retention to compacted topics, too.
		limit(maxBundleMessage)
		set("cleanup.policy", "compact")
		set("retention.ms", "-1")
		set("retention.bytes", "-1")
	case pipeline.TopicEngines:
		// Small segments are compacted soon. An engine that has not reported for a week is no longer listed.
		set("cleanup.policy", "compact,delete")
		set("retention.ms", strconv.FormatInt(enginesRetention.Milliseconds(), 10))
		set("segment.bytes", strconv.Itoa(enginesSegment))
		set("message.timestamp.type", "LogAppendTime")
	}
	return config
}

// Partitions returns the number of partitions of a topic (its full name). It does not create the topic.
func (c *Client) Partitions(ctx context.Context, topic string) (int, error) {
	counts, err := c.partitionCounts(ctx, []string{topic})
	if err != nil {
		return 0, err
	}
	if counts[0] == 0 {
		return 0, c.wrapError("find topic "+topic, kafka.UnknownTopicOrPartition)
	}
	return counts[0], nil
}

// findTopics returns the numbers of partitions of the topics that exist, and the names of those that do not.
func (c *Client) findTopics(ctx context.Context, names []string) (counts map[string]int, missing []string, err error) {
	topics := make([]string, len(names))
	for i, name := range names {
		topics[i] = c.Topic(name)
	}
	partitions, err := c.partitionCounts(ctx, topics)
	if err != nil {
		return nil, nil, err
	}
	counts = make(map[string]int, len(names))
	for i, name := range names {
		if partitions[i] == 0 {
			missing = append(missing, name)
		} else {
			counts[name] = partitions[i]
		}
	}
	return counts, missing, nil
}

// partitionCounts returns the number of partitions of each topic, 0 for a topic that does not exist. It uses
// a connection of its own: the shared transport returns cached metadata that may be seconds old, in which a
// topic that was just created is missing.
func (c *Client) partitionCounts(ctx context.Context, topics []string) ([]int, error) {
	fresh := c.newTransport()
	defer fresh.CloseIdleConnections()
	metadataResponse, err := c.newKafkaClient(fresh).Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return nil, c.wrapError("describe topics", err)
	}
	counts := make([]int, len(topics))
	for i, topic := range topics {
		for _, found := range metadataResponse.Topics {
			if found.Name != topic || errors.Is(found.Error, kafka.UnknownTopicOrPartition) {
				continue
			}
			if found.Error != nil {
				return nil, c.wrapError("describe topic "+topic, found.Error)
			}
			if n := len(found.Partitions); n > maxPartitions {
				err := fmt.Errorf("it has %d partitions, more than %d", n, maxPartitions)
				return nil, c.wrapError("describe topic "+topic, err)
			}
			counts[i] = len(found.Partitions)
		}
	}
	return counts, nil
}

// EndOffsets returns, for each of the partitions of a topic (its full name), the offset behind its last
// record.
func (c *Client) EndOffsets(ctx context.Context, topic string, partitions []int) (map[int]int64, error) {
	var requests []kafka.OffsetRequest
	for _, partition := range partitions {
		requests = append(requests, kafka.LastOffsetOf(partition))
	}
	response, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: requests},
	})
	if err != nil {
		return nil, c.wrapError("list the end offsets of "+topic, err)
	}
	ends := make(map[int]int64, len(partitions))
	for _, partitionOffsets := range response.Topics[topic] {
		if partitionOffsets.Error != nil {
			operation := fmt.Sprintf("list the end offset of %s/%d", topic, partitionOffsets.Partition)
			return nil, c.wrapError(operation, partitionOffsets.Error)
		}
		ends[partitionOffsets.Partition] = partitionOffsets.LastOffset
	}
	return ends, nil
}

// AdvertisedBrokers returns the addresses under which the brokers of the cluster are reached, host:port. They
// may differ from the configured ones.
func (c *Client) AdvertisedBrokers(ctx context.Context) ([]string, error) {
	metadata, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, c.wrapError("list the brokers", err)
	}
	var addresses []string
	for _, b := range metadata.Brokers {
		addresses = append(addresses, net.JoinHostPort(b.Host, strconv.Itoa(b.Port)))
	}
	return addresses, nil
}
