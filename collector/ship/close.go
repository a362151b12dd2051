package ship

import (
	"context"
	"errors"
	"time"
)

// Close rejects new events and sends the buffered ones until ctx ends. It does not wait if Kafka has been
// unavailable for longer than SpoolAfter, nor for partitions that the topic lacks. The remaining packets, and lines that cannot be read again, go to
// the spool. The remaining lines of files are read again by the next process, as after a kill.
func (s *Shipper) Close(ctx context.Context) error {
	if s.closing.Swap(true) {
		return nil
	}

	// 1. Refuse new events, close the open batches, and end the pauses after failed requests.
	close(s.stop)
	for _, partition := range s.everyPartition() {
		partition.files.closeInput()
		partition.packets.closeInput()
	}
	s.retryNow()

	// 2. Wait for Kafka to acknowledge the batches.
	for ctx.Err() == nil && !s.isDrained() && !s.isUnreachable() {
		timer := time.NewTimer(maintainInterval)
		select {
		case <-s.progress:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}

	// 3. End the goroutines, so that no batch is in use, and spill the remaining batches.
	s.stopWorkers()
	s.spillAll(true)
	return s.closeFiles(true)
}

// stopWorkers ends all goroutines and waits for them.
func (s *Shipper) stopWorkers() {
	s.cancel()
	for _, sender := range s.everySender() {
		sender.mu.Lock() // dispatch checks ctx and starts a request under this lock: no request starts after it
		if sender.timer != nil {
			sender.timer.Stop()
		}
		sender.mu.Unlock()
	}
	s.producing.Wait()
	s.workers.Wait()
}

// closeFiles closes the journal, the spool and the Kafka client, and releases the state folder. With flush,
// journal and spool are synced to the disk.
func (s *Shipper) closeFiles(flush bool) error {
	err := errors.Join(s.journal.Close(flush), s.spool.Close(flush))
	s.kafka.Close()
	if s.reg != nil {
		s.reg.Unregister(s)
	}
	return errors.Join(err, s.lock.Unlock())
}

// isDrained reports whether all batches that can be sent were sent.
func (s *Shipper) isDrained() bool {
	for _, partition := range s.everyPartition() {
		if partition.files.bufferedEvents() > 0 {
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

// isUnreachable reports whether all remaining batches are for partitions that do not exist, or of which Kafka has
// accepted no batch for longer than SpoolAfter.
func (s *Shipper) isUnreachable() bool {
	for _, partition := range s.everyPartition() {
		if partition.files.bufferedEvents() > 0 && !partition.files.sender.isUnreachable() {
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
