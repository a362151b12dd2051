package ship

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// sayEvery is how often trouble that goes on is said again.
const sayEvery = 30 * time.Second

// maintain moves to the spool what has waited too long, and gives up what does not come back.
func (s *Shipper) maintain() {
	t := time.NewTicker(janitorEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-s.maintainNow:
		case <-s.ctx.Done():
			return
		}
		now := time.Now()
		s.expireReplays(now)
		s.spillAll(false)
	}
}

func (s *Shipper) spillAll(now bool) {
	for _, p := range s.everyPartition() {
		p.files.moveUnreadable(now)
	}
	for _, st := range s.everySender() {
		st.spill(now)
	}
}

func (s *Shipper) requestMaintenance() {
	select {
	case s.maintainNow <- struct{}{}:
	default:
	}
}

// watchTopic learns how many partitions the topic has: often until Kafka has answered once.
func (s *Shipper) watchTopic() {
	for {
		wait := askEvery
		if !s.health.known.Load() {
			wait = time.Second
		}
		if !s.sleep(wait) {
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.kafka.Config().Timeout)
		s.refreshTopic(ctx)
		cancel()
	}
}

// refreshTopic makes sure of the topic. Until it has been seen once, in this life or an earlier one, everything goes to partition 0, which
// every topic has.
func (s *Shipper) refreshTopic(ctx context.Context) {
	counts, err := s.kafka.EnsureTopics(ctx, pipeline.TopicEvents)
	if err != nil {
		if s.ctx.Err() == nil {
			s.observeProduce(err)
		}
		return
	}
	s.health.known.Store(true)
	n := min(counts[pipeline.TopicEvents], maxPartitions)
	if n != len(*s.partitions.Load()) {
		s.log.Info("events topic", "topic", s.topic, "partitions", n)
		s.setPartitions(n)
	}
	s.reportDiskError(&s.counters.journalErr, "journal", s.journal.partitions(n))
}

// brokerHealth is whether Kafka takes what we produce.
type brokerHealth struct {
	known atomic.Bool // the topic has been seen in this life
	bad   atomic.Bool

	mu    sync.Mutex
	since time.Time
	said  time.Time
}

// observeProduce counts what came of asking Kafka, and says when that changes.
func (s *Shipper) observeProduce(err error) {
	w := &s.health
	if err == nil {
		if w.bad.Load() && w.bad.CompareAndSwap(true, false) {
			w.mu.Lock()
			after := time.Since(w.since)
			w.mu.Unlock()
			s.log.Info("kafka takes batches again", "after", after.Round(time.Millisecond))
			if after > time.Second { // else it is one partition that comes and goes
				s.retryNow()
			}
		}
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	kind := kafka.Classify(err)
	switch kind {
	case kafka.Denied:
		s.counters.deniedErrors.Add(1)
	case kafka.Rejected:
		s.counters.rejectedErrors.Add(1)
	default:
		s.counters.transientErrors.Add(1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if !w.bad.Swap(true) {
		w.since = now
	}
	if now.Sub(w.said) < sayEvery {
		return
	}
	w.said = now
	switch kind {
	case kafka.Denied:
		s.log.Error("kafka does not let us produce; trying again", "err", err)
	case kafka.Rejected:
		s.log.Error("kafka refuses a batch; its events are lost", "err", err)
	default:
		s.log.Warn("kafka does not take batches; log files wait, what cannot wait is spooled", "err", err)
	}
}

// retryNow lets what waits after a failure be tried at once.
func (s *Shipper) retryNow() {
	for _, st := range s.everySender() {
		st.mu.Lock()
		st.retryAt = time.Time{}
		st.dispatch()
		st.mu.Unlock()
	}
}

// reportDiskError counts and says that a file could not be written, once while that goes on.
func (s *Shipper) reportDiskError(n *atomic.Uint64, file string, err error) {
	if err == nil {
		return
	}
	if !errors.Is(err, errSpoolFull) {
		n.Add(1)
	}
	now := time.Now()
	if last, ok := s.diskSaid.Load(file); ok && now.Sub(last.(time.Time)) < sayEvery {
		return
	}
	s.diskSaid.Store(file, now)
	s.log.Error("cannot keep what was shipped on disk", "file", file, "err", err)
}

func (s *Shipper) reportDamage(file string, bytes int64) {
	if bytes > 0 {
		s.counters.damaged.Add(uint64(bytes))
		s.log.Warn("part of a file is damaged and was left out", "file", file, "bytes", bytes)
	}
}

// shedReason is the reason for which an event of the wire finds no room.
func (s *Shipper) shedReason() int {
	if s.health.bad.Load() {
		switch s.spool.state.Load() {
		case spoolFull:
			return dropSpoolFull
		case spoolFailed:
			return dropDisk
		}
	}
	return dropMemory
}

// sleep waits; false: the shipper ends.
func (s *Shipper) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Shipper) signalProgress() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}

// Close takes no more events and sends those that it has. What Kafka has not taken when ctx ends, or at once if Kafka has been away
// for long, goes to the spool if it cannot be read again; lines of files are found by the next life, as after a kill.
func (s *Shipper) Close(ctx context.Context) error {
	if s.closing.Swap(true) {
		return nil
	}
	close(s.stop)
	for _, p := range s.everyPartition() {
		p.files.stop()
		p.packets.stop()
	}
	s.retryNow()
	for !s.everythingProduced() && !s.brokerUnreachable() {
		t := time.NewTimer(janitorEvery)
		select {
		case <-s.progress:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			break
		}
	}
	s.stopWorkers()
	s.spillAll(true)
	return s.closeFiles(true)
}

// stopWorkers ends everything that runs.
func (s *Shipper) stopWorkers() {
	s.cancel()
	for _, st := range s.everySender() {
		st.mu.Lock() // whoever starts a sender holds it, and looks at the context first
		if st.timer != nil {
			st.timer.Stop()
		}
		st.mu.Unlock()
	}
	s.producing.Wait()
	s.workers.Wait()
}

func (s *Shipper) closeFiles(flush bool) error {
	segments := map[*segment]bool{}
	for _, st := range s.everySender() {
		st.mu.Lock()
		for _, it := range st.pending {
			if it.state != stateDone && it.ref.segment != nil {
				segments[it.ref.segment] = true
			}
		}
		st.mu.Unlock()
	}
	err := errors.Join(s.journal.close(flush), s.spool.close(flush, segments))
	s.kafka.Close()
	if s.reg != nil {
		s.reg.Unregister(s)
	}
	return errors.Join(err, s.lock.Unlock())
}

func (s *Shipper) everythingProduced() bool {
	for _, p := range s.everyPartition() {
		if p.files.bufferedEvents() > 0 {
			return false
		}
	}
	for _, st := range s.everySender() {
		if !st.isDrained() {
			return false
		}
	}
	return true
}

// brokerUnreachable tells whether all that is left is for partitions that Kafka has not taken anything of for long.
func (s *Shipper) brokerUnreachable() bool {
	if !s.health.bad.Load() {
		return false
	}
	for _, p := range s.everyPartition() {
		if p.files.bufferedEvents() > 0 && !p.files.sender.isUnreachable() {
			return false
		}
	}
	for _, st := range s.everySender() {
		if !st.isDrained() && !st.isUnreachable() {
			return false
		}
	}
	return true
}
