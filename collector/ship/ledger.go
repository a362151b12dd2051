package ship

import "sync/atomic"

// A Ledger is the account of all events. After Close, Read + Recovered = Delivered + Buffered + Dropped +
// Lost + Unconfirmed.
type Ledger struct {
	Read      uint64 // shipped by the sources
	Recovered uint64 // read from the spool of an earlier process, or missing from one of its batches
	Delivered uint64 // acknowledged by Kafka
	Buffered  uint64 // in memory or in the spool
	Dropped   uint64 // shed, or too large
	Lost      uint64 // rejected by Kafka, or damaged on disk

	// Lines of batches that an earlier process may have produced before it was killed. Their file was not found
	// again: they are in Kafka or lost.
	Unconfirmed uint64

	Spooled uint64 // written to the spool; also counted in one of the fields above
	Reread  uint64 // safe before a restart and read again after it; not counted in the fields above
}

// IsBalanced reports whether the account holds: no event is missing or counted twice.
func (ledger Ledger) IsBalanced() bool {
	return ledger.Read+ledger.Recovered ==
		ledger.Delivered+ledger.Buffered+ledger.Dropped+ledger.Lost+ledger.Unconfirmed
}

// Ledger returns the account of all events so far. It is balanced only after Close: before, events may be
// moving from one place to another while they are counted.
func (s *Shipper) Ledger() Ledger {
	counters := &s.counters
	ledger := Ledger{
		Read: counters.read.total(), Recovered: counters.recovered.total(), Delivered: counters.delivered.total(),
		Buffered: s.bufferedEvents(), Spooled: counters.spooled.total(), Reread: counters.reread.total(),
		Unconfirmed: counters.unconfirmed.total(),
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

// bufferedEvents returns the number of events that wait in memory or in the spool.
func (s *Shipper) bufferedEvents() (events uint64) {
	for _, partition := range s.everyPartition() {
		events += partition.files.bufferedEvents() + partition.packets.bufferedEvents()
	}
	for _, sender := range s.everySender() {
		events += sender.bufferedEvents()
	}
	return events
}

// fileBytes returns the number of encoded bytes of log lines in memory.
func (s *Shipper) fileBytes() (bytes int64) {
	for _, partition := range s.everyPartition() {
		bytes += partition.files.budget.used.Load()
	}
	return bytes
}

// The reasons for which events are dropped on purpose (drop…) or lost against our will (lost…).
const (
	dropMemory    = iota // memory is full: the sources are faster than Kafka
	dropSpoolFull        // Kafka is unavailable and the spool is full
	dropDisk             // Kafka is unavailable and the spool cannot be written
	dropTooLarge         // larger than a batch
	dropClosed           // shipped after Close
	lostRejected         // Kafka will never accept them
	lostSpool            // damaged in the spool
	numReasons
)

var reasonNames = [numReasons]string{
	"memory", "spool_full", "spool_failed", "too_large", "closed", "rejected", "spool_damaged",
}

// isLoss reports whether events that are discarded for this reason count as lost, and not as dropped.
func isLoss(reason int) bool { return reason >= lostRejected }

// counters are the source of the Ledger and of the metrics.
type counters struct {
	read, recovered, delivered, safe, spooled, reread, unconfirmed datasetCounter

	discarded [numReasons]datasetCounter

	batches       atomic.Uint64
	produceErrors [numErrorClasses]atomic.Uint64
}

// numErrorClasses is the number of values of kafka.ErrorClass.
const numErrorClasses = 3
