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

// errorLogInterval is the minimum time between two log lines about failed requests.
const errorLogInterval = 30 * time.Second

// brokerHealth records whether Kafka accepts requests.
type brokerHealth struct {
	topicKnown  atomic.Bool // the number of partitions was read from Kafka by this process
	unavailable atomic.Bool // the last request failed
	throttle    *logging.Throttle

	mu               sync.Mutex
	unavailableSince time.Time
	lastError        error // of the last request that failed
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

	// Every failure is counted, and at most one per errorLogInterval is logged.
	class := kafka.Classify(err)
	s.counters.produceErrors[class].Add(1)

	health.mu.Lock()
	if !health.unavailable.Swap(true) {
		health.unavailableSince = time.Now()
	}
	health.lastError = err
	health.mu.Unlock()
	if _, ok := health.throttle.Allow(); !ok {
		return
	}
	switch class {
	case kafka.Denied:
		s.log.Error("kafka denies access: buffering and retrying", "err", err)
	case kafka.Rejected:
		s.log.Error("kafka rejected a batch; its events are lost", "err", err)
	default:
		s.log.Warn("kafka unavailable: buffering; logs stay in their files, packet events are spooled", "err", err)
	}
}

// Unavailable returns why the last request to Kafka failed, or nil if it succeeded.
func (s *Shipper) Unavailable() error {
	health := &s.health
	if !health.unavailable.Load() {
		return nil
	}
	health.mu.Lock()
	defer health.mu.Unlock()
	return health.lastError
}

// recordProduceSuccess records that Kafka is available. If it was unavailable before, it logs that and ends
// the pauses after failed requests.
func (s *Shipper) recordProduceSuccess() {
	health := &s.health
	if !health.unavailable.Load() || !health.unavailable.CompareAndSwap(true, false) {
		return
	}
	health.mu.Lock()
	outage := time.Since(health.unavailableSince)
	health.mu.Unlock()
	s.log.Info("kafka available again", "after", outage.Round(time.Millisecond))
	if outage > time.Second { // a shorter one is the change of a partition's leader
		s.retryNow()
	}
}

// retryNow ends the pauses after failed requests in all senders.
func (s *Shipper) retryNow() {
	for _, sender := range s.everySender() {
		sender.mu.Lock()
		sender.retryAt = time.Time{}
		sender.dispatch()
		sender.mu.Unlock()
	}
}

// watchTopic refreshes the number of partitions of the topic every topicInterval, and every second until
// Kafka has answered once. It runs in a goroutine of its own.
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

// refreshTopic creates the topic if it does not exist and reads its number of partitions. Until the number is
// known, from Kafka or from the journal, all events go to partition 0, which every topic has.
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
