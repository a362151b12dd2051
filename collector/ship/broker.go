package ship

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/logging"
)

const (
	errorLogInterval   = 30 * time.Second // minimum time between two log lines about failed requests
	missingLogInterval = 10 * time.Minute // and about partitions that the topic lacks
)

// brokerHealth records whether Kafka accepts requests.
type brokerHealth struct {
	topicKnown    atomic.Bool // the number of partitions was read from Kafka by this process
	topicDoubtful atomic.Bool // a request failed because Kafka does not have its partition
	unavailable   atomic.Bool // the last request failed
	throttle      *logging.Throttle
	missing       *logging.Throttle // of lines about partitions that the topic lacks

	mu               sync.Mutex
	unavailableSince time.Time
	logged           bool  // this outage has a line
	lastError        error // of the last request that failed
}

func newBrokerHealth() brokerHealth {
	return brokerHealth{
		throttle: logging.NewThrottle(errorLogInterval), missing: logging.NewThrottle(missingLogInterval),
	}
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
	_, isLogged := health.throttle.Allow()
	health.logged = health.logged || isLogged
	health.mu.Unlock()
	if !isLogged {
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

// Unavailable returns why the last request to Kafka failed, or which partitions the topic lacks; nil: events
// are sent.
func (s *Shipper) Unavailable() error {
	health := &s.health
	if !health.unavailable.Load() {
		return s.missingError()
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
	outage, logged := time.Since(health.unavailableSince), health.logged
	health.logged = false
	health.mu.Unlock()
	if logged {
		s.log.Info("kafka available again", "after", outage.Round(time.Millisecond))
	}
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

// watchTopic refreshes the number of partitions of the topic: every topicInterval, every missingInterval
// while events wait for partitions that do not exist, and within a second after a request for such a
// partition and until Kafka has answered once. It runs in a goroutine of its own.
func (s *Shipper) watchTopic() {
	for last := time.Now(); s.sleep(time.Second); {
		interval := topicInterval
		if partitions, _ := s.missingPartitions(); len(partitions) > 0 {
			interval = missingInterval
		}
		isDue := !s.health.topicKnown.Load() || time.Since(last) >= interval
		if !isDue && !s.health.topicDoubtful.Load() {
			continue
		}
		s.health.topicDoubtful.Store(false)
		ctx, cancel := context.WithTimeout(s.ctx, s.kafka.Config().Timeout)
		s.refreshTopic(ctx, isDue)
		cancel()
		if isDue {
			last = time.Now()
		}
	}
}

// refreshTopic reads the number of partitions of the topic and, with create, creates it if it does not exist.
// Until the number is known, from Kafka or from the journal, all events go to partition 0, which every topic
// has.
func (s *Shipper) refreshTopic(ctx context.Context, create bool) {
	count, err := s.countPartitions(ctx, create)
	if err != nil {
		if s.ctx.Err() == nil {
			s.recordProduceResult(err)
		}
		return
	}
	// Producers that wait for a partition which is missing now look at topicKnown.
	isChanged := count != len(*s.partitions.Load())
	s.health.topicKnown.Store(true)
	if isChanged {
		s.log.Info("events topic found", "topic", s.topic, "partitions", count)
		s.setPartitions(count)
	}
	s.journal.SetPartitions(count)
	if isChanged {
		s.retryNow() // the senders of partitions that were missing
	}
	if !s.isFailing() {
		s.recordProduceSuccess()
	}

	// No request is sent for a partition that does not exist, so no other line is logged about it.
	if err := s.missingError(); err == nil {
		s.health.missing.Reset()
	} else if _, ok := s.health.missing.Allow(); ok {
		s.log.Error("the events topic lacks partitions: their events wait", "err", err)
	}
}

// isFailing reports whether the last request to a partition that exists has failed.
func (s *Shipper) isFailing() bool {
	return slices.ContainsFunc(s.everySender(), func(sender *sender) bool {
		return sender.isFailing() && !s.isMissing(int(sender.partition))
	})
}

func (s *Shipper) countPartitions(ctx context.Context, create bool) (int, error) {
	if !create {
		count, err := s.kafka.Partitions(ctx, s.topic)
		return min(count, maxPartitions), err
	}
	counts, err := s.kafka.EnsureTopics(ctx, pipeline.TopicEvents)
	return min(counts[pipeline.TopicEvents], maxPartitions), err
}
