package ship

import (
	"context"
	"errors"
	"time"
)

// Close takes no more events and sends those that it has. What Kafka has not accepted when ctx ends, or at
// once if Kafka has been unavailable for long, goes to the spool if it cannot be read again. Lines of files
// are found by the next process, as after a kill.
func (s *Shipper) Close(ctx context.Context) error {
	if s.closing.Swap(true) {
		return nil
	}

	// 1. Take nothing more, and let everything be sent at once.
	close(s.stop)
	for _, p := range s.everyPartition() {
		p.files.closeInput()
		p.packets.closeInput()
	}
	s.retryNow()

	// 2. Wait for Kafka while that makes sense.
	for ctx.Err() == nil && !s.isDrained() && !s.isUnreachable() {
		timer := time.NewTimer(maintainInterval)
		select {
		case <-s.progress:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}

	// 3. End the goroutines, so that no batch is in use, and spool the rest.
	s.stopWorkers()
	s.spillAll(true)
	return s.closeFiles(true)
}

// stopWorkers ends all goroutines.
func (s *Shipper) stopWorkers() {
	s.cancel()
	for _, sender := range s.everySender() {
		sender.mu.Lock() // dispatch holds it while it looks at ctx and starts a request
		if sender.timer != nil {
			sender.timer.Stop()
		}
		sender.mu.Unlock()
	}
	s.producing.Wait()
	s.workers.Wait()
}

// closeFiles releases everything outside of memory. flush makes what was written survive a power cut.
func (s *Shipper) closeFiles(flush bool) error {
	err := errors.Join(s.journal.Close(flush), s.spool.Close(flush))
	s.kafka.Close()
	if s.reg != nil {
		s.reg.Unregister(s)
	}
	return errors.Join(err, s.lock.Unlock())
}

// isDrained reports whether everything that can be sent has been.
func (s *Shipper) isDrained() bool {
	for _, p := range s.everyPartition() {
		if p.files.bufferedEvents() > 0 {
			return false
		}
	}
	for _, sender := range s.everySender() {
		if !sender.isDrained() {
			return false
		}
	}
	return true
}

// isUnreachable reports whether all that is left is for partitions of which Kafka has accepted nothing for
// long.
func (s *Shipper) isUnreachable() bool {
	if !s.health.unavailable.Load() {
		return false
	}
	for _, p := range s.everyPartition() {
		if p.files.bufferedEvents() > 0 && !p.files.sender.isUnreachable() {
			return false
		}
	}
	for _, sender := range s.everySender() {
		if !sender.isDrained() && !sender.isUnreachable() {
			return false
		}
	}
	return true
}
