package ship

import (
	"time"

	"tidegate/collector/ship/spool"
	"tidegate/pipeline/retry"
)

// maintain spills what has waited for too long and ends replays of files that do not come back. It runs in a
// goroutine of its own.
func (s *Shipper) maintain() {
	ticker := time.NewTicker(maintainInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.maintainNow:
		case <-s.ctx.Done():
			return
		}
		s.expireReplays(time.Now())
		s.spillAll(false)
	}
}

// spillAll writes to the spool what can go there: what has waited for long or, with always, everything.
func (s *Shipper) spillAll(always bool) {
	for _, p := range s.everyPartition() {
		p.files.moveUnreadable(always)
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

// shedReason returns why there is no memory for a packet.
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

// sleep waits for d. It reports false when the shipper ends before.
func (s *Shipper) sleep(d time.Duration) bool { return retry.Sleep(s.ctx, d) == nil }

func (s *Shipper) signalProgress() {
	select {
	case s.progress <- struct{}{}:
	default:
	}
}
