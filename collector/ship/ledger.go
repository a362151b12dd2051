package ship

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
)

// A Ledger accounts for every event. For a shipper that was closed in order, Read + Recovered = Shipped + Waiting + Dropped + Lost.
type Ledger struct {
	Read      uint64 // handed over by the sources
	Recovered uint64 // found in the spool of an earlier life, or missing from one of its batches
	Delivered uint64 // acknowledged by Kafka
	Buffered  uint64 // in memory or in the spool
	Dropped   uint64 // shed, or too large
	Lost      uint64 // refused by Kafka, damaged on disk, or gone with their file

	Spooled uint64 // went through the spool; they are in one of the sums above as well
	Reread  uint64 // read again after a kill, but safe already; in none of the sums
}

// IsBalanced tells whether every event has its place.
func (l Ledger) IsBalanced() bool {
	return l.Read+l.Recovered == l.Delivered+l.Buffered+l.Dropped+l.Lost
}

// Why something was dropped or lost.
const (
	dropMemory    = iota // the sources are faster than Kafka
	dropSpoolFull        // Kafka is away and the spool is full
	dropDisk             // Kafka is away and the spool cannot be written
	dropTooLarge         // larger than a batch
	dropClosed           // came after Close
	lostRejected         // Kafka will never take it
	lostSpool            // damaged in the spool
	lostFile             // its file did not come back after a kill
	numReasons
)

var reasonNames = [numReasons]string{"memory", "spool_full", "spool_failed", "too_large", "closed", "rejected", "spool_damaged", "file_gone"}

type datasetCounter [pipeline.NumDatasets]atomic.Uint64

func (c *datasetCounter) add(n *datasetCounts) {
	for i, v := range n {
		if v > 0 {
			c[i].Add(uint64(v))
		}
	}
}

func (c *datasetCounter) sum() (n uint64) {
	for i := range c {
		n += c[i].Load()
	}
	return n
}

// counters are the counters behind the ledger and the metrics.
type counters struct {
	read, recovered, delivered, safe, spooled, reread datasetCounter

	discarded [numReasons]datasetCounter

	batches         atomic.Uint64
	transientErrors atomic.Uint64 // errors of produce by kind
	deniedErrors    atomic.Uint64
	rejectedErrors  atomic.Uint64
	journalErr      atomic.Uint64
	spoolErr        atomic.Uint64
	damaged         atomic.Uint64 // bytes of journal and spool that could not be read
}

func (b *counters) ledger(waiting uint64) Ledger {
	l := Ledger{
		Read: b.read.sum(), Recovered: b.recovered.sum(), Delivered: b.delivered.sum(), Buffered: waiting,
		Spooled: b.spooled.sum(), Reread: b.reread.sum(),
	}
	for reason := range b.discarded {
		if reason < lostRejected {
			l.Dropped += b.discarded[reason].sum()
		} else {
			l.Lost += b.discarded[reason].sum()
		}
	}
	return l
}

// The metrics. Those by dataset are the ledger; acked counts what is safe, in Kafka or in the spool.
var (
	byDataset     = []string{"dataset"}
	byWhy         = []string{"dataset", "reason"}
	descRead      = desc("events_read_total", "Events handed over by the sources.", byDataset)
	descRecovered = desc("events_recovered_total", "Events taken over from the spool or the batches of an earlier life.", byDataset)
	descDelivered = desc("events_delivered_total", "Events acknowledged by Kafka.", byDataset)
	descSafe      = desc("events_safe_total", "Events that are safe in Kafka or in the spool.", byDataset)
	descSpooled   = desc("events_spooled_total", "Events written to the spool.", byDataset)
	descReread    = desc("events_reread_total", "Events read again after a kill that were safe already.", byDataset)
	descDropped   = desc("events_dropped_total", "Events dropped on purpose.", byWhy)
	descLost      = desc("events_lost_total", "Events lost.", byWhy)
	descBuffered  = desc("events_buffered", "Events in memory or in the spool.", nil)
	descMemory    = desc("buffer_bytes", "Encoded events in memory.", []string{"source"})
	descSpool     = desc("spool_bytes", "Size of the spool.", nil)
	descJournal   = desc("journal_bytes", "Size of the journal.", nil)
	descBatches   = desc("batches_delivered_total", "Batches acknowledged by Kafka.", nil)
	descErrors    = desc("produce_errors_total", "Produce requests that came to nothing.", []string{"kind"})
	descDisk      = desc("disk_errors_total", "Writes of the journal or the spool that came to nothing.", []string{"file"})
	descDamaged   = desc("unreadable_bytes_total", "Bytes of journal and spool that could not be read.", nil)
)

func desc(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("tidegate_collector_"+name, help, labels, nil)
}

// Describe makes a Shipper a prometheus.Collector.
func (s *Shipper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRead, descRecovered, descDelivered, descSafe, descSpooled, descReread, descDropped, descLost, descBuffered,
		descMemory, descSpool, descJournal, descBatches, descErrors, descDisk, descDamaged,
	} {
		ch <- d
	}
}

// Collect makes a Shipper a prometheus.Collector.
func (s *Shipper) Collect(ch chan<- prometheus.Metric) {
	b := &s.counters
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for i := range pipeline.NumDatasets {
		name := pipeline.Dataset(i).Name()
		if i == 0 {
			name = "none"
		}
		count(descRead, b.read[i].Load(), name)
		count(descRecovered, b.recovered[i].Load(), name)
		count(descDelivered, b.delivered[i].Load(), name)
		count(descSafe, b.safe[i].Load(), name)
		count(descSpooled, b.spooled[i].Load(), name)
		count(descReread, b.reread[i].Load(), name)
		for reason := range b.discarded {
			d := descDropped
			if reason >= lostRejected {
				d = descLost
			}
			count(d, b.discarded[reason][i].Load(), name, reasonNames[reason])
		}
	}
	gauge(descBuffered, float64(s.bufferedEvents()))
	gauge(descMemory, float64(s.packetBudget.used.Load()), "packets")
	gauge(descMemory, float64(s.fileBytes()), "files")
	gauge(descSpool, float64(s.spool.bytes()))
	gauge(descJournal, float64(s.journal.bytes()))
	count(descBatches, b.batches.Load())
	count(descErrors, b.transientErrors.Load(), "retriable")
	count(descErrors, b.deniedErrors.Load(), "denied")
	count(descErrors, b.rejectedErrors.Load(), "rejected")
	count(descDisk, b.journalErr.Load(), "journal")
	count(descDisk, b.spoolErr.Load(), "spool")
	count(descDamaged, b.damaged.Load())
}
