package ship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/logging"
)

// errorLogInterval is the time between two log lines about the same trouble.
const errorLogInterval = 30 * time.Second

// brokerHealth says whether Kafka accepts what is produced.
type brokerHealth struct {
	topicKnown  atomic.Bool // Kafka has told this process how many partitions the topic has
	unavailable atomic.Bool // the last request failed
	throttle    *logging.Throttle

	mu               sync.Mutex
	unavailableSince time.Time // of unavailable
}

func newBrokerHealth() brokerHealth {
	return brokerHealth{throttle: logging.NewThrottle(errorLogInterval)}
}

// recordProduceResult counts the result of a request to Kafka and logs when Kafka becomes unavailable or
// available.
func (s *Shipper) recordProduceResult(err error) {
	health := &s.health
	if err == nil {
		s.recordProduceSuccess()
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	class := kafka.Classify(err)
	s.counters.produceErrors[class].Add(1)

	health.mu.Lock()
	if !health.unavailable.Swap(true) {
		health.unavailableSince = time.Now()
	}
	health.mu.Unlock()
	if _, ok := health.throttle.Allow(); !ok {
		return
	}
	switch class {
	case kafka.Denied:
		s.log.Error("kafka denies access: buffering and trying again", "err", err)
	case kafka.Rejected:
		s.log.Error("kafka rejected a batch; its events are lost", "err", err)
	default:
		s.log.Warn("kafka unavailable: buffering; logs stay in their files, packet events are spooled", "err", err)
	}
}

// recordProduceSuccess logs that Kafka is available again, if it was not, and retries at once what waits
// after a failure.
func (s *Shipper) recordProduceSuccess() {
	health := &s.health
	if !health.unavailable.Load() || !health.unavailable.CompareAndSwap(true, false) {
		return
	}
	health.mu.Lock()
	outage := time.Since(health.unavailableSince)
	health.mu.Unlock()
	s.log.Info("kafka available again", "after", outage.Round(time.Millisecond))
	if outage > time.Second { // a shorter one is a single partition that moves
		s.retryNow()
	}
}

// retryNow ends the pauses after failed requests.
func (s *Shipper) retryNow() {
	for _, sender := range s.everySender() {
		sender.mu.Lock()
		sender.retryAt = time.Time{}
		sender.dispatch()
		sender.mu.Unlock()
	}
}

// watchTopic follows the number of partitions of the topic; often, until Kafka has answered once. It runs in
// a goroutine of its own.
func (s *Shipper) watchTopic() {
	for {
		pause := topicInterval
		if !s.health.topicKnown.Load() {
			pause = time.Second
		}
		if !s.sleep(pause) {
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.kafka.Config().Timeout)
		s.refreshTopic(ctx)
		cancel()
	}
}

// refreshTopic creates the topic if need be and learns how many partitions it has. Until the number is known,
// from this or an earlier process, everything goes to partition 0, which every topic has.
func (s *Shipper) refreshTopic(ctx context.Context) {
	partitions, err := s.kafka.EnsureTopics(ctx, pipeline.TopicEvents)
	if err != nil {
		if s.ctx.Err() == nil {
			s.recordProduceResult(err)
		}
		return
	}
	s.health.topicKnown.Store(true)
	count := min(partitions[pipeline.TopicEvents], maxPartitions)
	if count != len(*s.partitions.Load()) {
		s.log.Info("events topic found", "topic", s.topic, "partitions", count)
		s.setPartitions(count)
	}
	s.journal.SetPartitions(count)
}
