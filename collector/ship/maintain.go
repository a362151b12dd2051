package ship

import (
	"time"

	"tidegate/collector/ship/spool"
	"tidegate/pipeline/retry"
)

// maintain spills batches that have waited for too long, and ends replays of files that are not read again.
// It runs every maintainInterval and on requestMaintenance, in a goroutine of its own.
func (s *Shipper) maintain() {
	ticker := time.NewTicker(maintainInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-s.maintainNow:
		case <-s.ctx.Done():
			return
		}
		s.journalUnwritten()
		now := time.Now()
		s.expireReplays(now.Sub(last))
		last = now
		s.spillAll(false)
	}
}

// spillAll spills the batches of all senders that may go to the spool and have waited for SpoolAfter; with
// always, it does not matter how long they have waited.
func (s *Shipper) spillAll(always bool) {
	for _, partition := range s.everyPartition() {
		partition.files.moveUnreadable(always)
	}
	for _, sender := range s.everySender() {
		sender.spillBatches(always)
	}
}

func (s *Shipper) requestMaintenance() {
	select {
	case s.maintainNow <- struct{}{}:
	default:
	}
}

// shedReason returns the reason why there is no memory for a packet.
func (s *Shipper) shedReason() int {
	if s.health.unavailable.Load() {
		switch s.spool.Condition() {
		case spool.Full:
			return dropSpoolFull
		case spool.Failing:
			return dropDisk
		}
	}
	return dropMemory
}

// sleep waits for d. It returns false if the shipper ends before.
func (s *Shipper) sleep(d time.Duration) bool { return retry.Sleep(s.ctx, d) == nil }

func (s *Shipper) signalProgress() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}
