package engine

import (
	"context"
	"fmt"
	"maps"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
)

// Lag returns how many messages no finished block covers yet, over the partitions that this process owns at the moment.
func (e *Engine) Lag(ctx context.Context) (int64, error) {
	e.mu.Lock()
	nextOffsets := maps.Clone(e.nextOffsets)
	e.mu.Unlock()
	if len(nextOffsets) == 0 {
		return 0, nil
	}

	topic := e.deps.Kafka.Topic(pipeline.TopicEvents)
	var requests []kafkago.OffsetRequest
	for partition := range nextOffsets {
		requests = append(requests, kafkago.LastOffsetOf(partition))
	}
	response, err := e.deps.Kafka.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: requests}})
	if err != nil {
		return 0, fmt.Errorf("list the end offsets of %s: %w", topic, err)
	}

	lag := int64(0)
	for _, p := range response.Topics[topic] {
		if p.Error != nil {
			return 0, fmt.Errorf("list the end offset of %s/%d: %w", topic, p.Partition, p.Error)
		}
		lag += max(0, p.LastOffset-nextOffsets[p.Partition])
	}
	return lag, nil
}

// setNextOffset records the offset behind the last finished block of a partition that this process owns.
func (e *Engine) setNextOffset(partition int, next int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.nextOffsets[partition] = next
}

// removeNextOffset records that this process does not own a partition any more.
func (e *Engine) removeNextOffset(partition int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.nextOffsets, partition)
}
