package ship

import "sync/atomic"

// A Ledger accounts for every event. After Close, Read + Recovered = Delivered + Buffered + Dropped + Lost.
type Ledger struct {
	Read      uint64 // handed over by the sources
	Recovered uint64 // found in the spool of an earlier process, or missing from one of its batches
	Delivered uint64 // acknowledged by Kafka
	Buffered  uint64 // in memory or in the spool
	Dropped   uint64 // shed, or too large
	Lost      uint64 // rejected by Kafka, damaged on disk, or gone with their file

	Spooled uint64 // went through the spool; they are in one of the sums above as well
	Reread  uint64 // read again after a restart although they were safe; in none of the sums
}

// IsBalanced reports whether every event has its place.
func (ledger Ledger) IsBalanced() bool {
	return ledger.Read+ledger.Recovered == ledger.Delivered+ledger.Buffered+ledger.Dropped+ledger.Lost
}

// Ledger returns the account of all events so far. It balances only after Close: before, events are on their
// way from one place to another.
func (s *Shipper) Ledger() Ledger {
	counters := &s.counters
	ledger := Ledger{
		Read: counters.read.total(), Recovered: counters.recovered.total(), Delivered: counters.delivered.total(),
		Buffered: s.bufferedEvents(), Spooled: counters.spooled.total(), Reread: counters.reread.total(),
	}
	for reason := range counters.discarded {
		if isLoss(reason) {
			ledger.Lost += counters.discarded[reason].total()
		} else {
			ledger.Dropped += counters.discarded[reason].total()
		}
	}
	return ledger
}

// bufferedEvents returns how many events wait in memory or in the spool.
func (s *Shipper) bufferedEvents() (n uint64) {
	for _, p := range s.everyPartition() {
		n += p.files.bufferedEvents() + p.packets.bufferedEvents()
	}
	for _, sender := range s.everySender() {
		n += sender.bufferedEvents()
	}
	return n
}

// fileBytes returns how many encoded bytes of log lines are in memory.
func (s *Shipper) fileBytes() (n int64) {
	for _, p := range s.everyPartition() {
		n += p.files.budget.used.Load()
	}
	return n
}

// The reasons for which events are dropped on purpose, and those for which they are lost.
const (
	dropMemory    = iota // the sources are faster than Kafka
	dropSpoolFull        // Kafka is unavailable and the spool is full
	dropDisk             // Kafka is unavailable and the spool cannot be written
	dropTooLarge         // larger than a batch
	dropClosed           // shipped after Close
	lostRejected         // Kafka will never accept them
	lostSpool            // damaged in the spool
	lostFile             // their file did not come back after a kill
	numReasons
)

var reasonNames = [numReasons]string{
	"memory", "spool_full", "spool_failed", "too_large", "closed", "rejected", "spool_damaged", "file_gone",
}

// isLoss reports whether events that are discarded for this reason are lost against our will.
func isLoss(reason int) bool { return reason >= lostRejected }

// counters are behind the Ledger and the metrics.
type counters struct {
	read, recovered, delivered, safe, spooled, reread datasetCounter

	discarded [numReasons]datasetCounter

	batches       atomic.Uint64
	produceErrors [numErrorClasses]atomic.Uint64
}

// numErrorClasses is the number of values of kafka.ErrorClass.
const numErrorClasses = 3
