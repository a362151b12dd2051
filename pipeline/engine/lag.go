package engine

import (
	"context"
	"maps"
	"slices"

	"tidegate/pipeline"
)

// Lag returns the number of messages that no finished block covers yet, summed over the partitions that this
// process owns now.
func (e *Engine) Lag(ctx context.Context) (int64, error) {
	e.mu.Lock()
	nextOffsets := maps.Clone(e.nextOffsets)
	e.mu.Unlock()
	if len(nextOffsets) == 0 {
		return 0, nil
	}

	ends, err := e.deps.Kafka.EndOffsets(ctx, e.deps.Kafka.Topic(pipeline.TopicEvents),
		slices.Collect(maps.Keys(nextOffsets)))
	if err != nil {
		return 0, err
	}
	lag := int64(0)
	for partition, end := range ends {
		lag += max(0, end-nextOffsets[partition])
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
