package engine

import (
	"context"
	"fmt"
	"maps"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
)

// Lag asks Kafka how many messages lie behind the last finished blocks of the partitions that this process owns at the moment.
func (e *Engine) Lag(ctx context.Context) (int64, error) {
	e.mu.Lock()
	done := maps.Clone(e.nextOffsets)
	e.mu.Unlock()
	if len(done) == 0 {
		return 0, nil
	}
	topic := e.deps.Kafka.Topic(pipeline.TopicEvents)
	var ask []kafkago.OffsetRequest
	for p := range done {
		ask = append(ask, kafkago.LastOffsetOf(p))
	}
	r, err := e.deps.Kafka.Kafka().ListOffsets(ctx, &kafkago.ListOffsetsRequest{Topics: map[string][]kafkago.OffsetRequest{topic: ask}})
	if err != nil {
		return 0, fmt.Errorf("ask for the end of %s: %w", topic, err)
	}
	sum := int64(0)
	for _, p := range r.Topics[topic] {
		if p.Error != nil {
			return 0, fmt.Errorf("ask for the end of %s/%d: %w", topic, p.Partition, p.Error)
		}
		sum += max(0, p.LastOffset-done[p.Partition])
	}
	return sum, nil
}

// setNextOffset notes the offset behind the last finished block of a partition; -1 that the partition is no longer ours.
func (e *Engine) setNextOffset(partition int, next int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if next < 0 {
		delete(e.nextOffsets, partition)
		return
	}
	e.nextOffsets[partition] = next
}
