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
	Shipped   uint64 // acknowledged by Kafka
	Waiting   uint64 // in memory or in the spool
	Dropped   uint64 // shed, or too large
	Lost      uint64 // refused by Kafka, damaged on disk, or gone with their file

	Spooled uint64 // went through the spool; they are in one of the sums above as well
	Resumed uint64 // read again after a kill, but safe already; in none of the sums
}

// Balanced tells whether every event has its place.
func (l Ledger) Balanced() bool {
	return l.Read+l.Recovered == l.Shipped+l.Waiting+l.Dropped+l.Lost
}

// Why something was dropped or lost.
const (
	dropMemory    = iota // the sources are faster than Kafka
	dropSpoolFull        // Kafka is away and the spool is full
	dropDisk             // Kafka is away and the spool cannot be written
	dropTooLarge         // larger than a batch
	dropClosed           // came after Close
	lostRefused          // Kafka will never take it
	lostSpool            // damaged in the spool
	lostFile             // its file did not come back after a kill
	reasons
)

var reasonNames = [reasons]string{"memory", "spool_full", "spool_failed", "too_large", "closed", "refused", "spool_damaged", "file_gone"}

type counter [datasets]atomic.Uint64

func (c *counter) add(n *counts) {
	for i, v := range n {
		if v > 0 {
			c[i].Add(uint64(v))
		}
	}
}

func (c *counter) sum() (n uint64) {
	for i := range c {
		n += c[i].Load()
	}
	return n
}

// books are the counters behind the ledger and the metrics.
type books struct {
	read, recovered, shipped, acked, spooled, resumed counter

	gone [reasons]counter

	batches    atomic.Uint64
	passing    atomic.Uint64 // errors of produce by kind
	denied     atomic.Uint64
	refused    atomic.Uint64
	journalErr atomic.Uint64
	spoolErr   atomic.Uint64
	damaged    atomic.Uint64 // bytes of journal and spool that could not be read
}

func (b *books) ledger(waiting uint64) Ledger {
	l := Ledger{
		Read: b.read.sum(), Recovered: b.recovered.sum(), Shipped: b.shipped.sum(), Waiting: waiting,
		Spooled: b.spooled.sum(), Resumed: b.resumed.sum(),
	}
	for reason := range b.gone {
		if reason < lostRefused {
			l.Dropped += b.gone[reason].sum()
		} else {
			l.Lost += b.gone[reason].sum()
		}
	}
	return l
}

// The metrics. Those by dataset are the ledger; acked counts what is safe, in Kafka or in the spool.
var (
	byDataset     = []string{"dataset"}
	byWhy         = []string{"dataset", "reason"}
	descRead      = desc("read_total", "Events handed over by the sources.", byDataset)
	descRecovered = desc("recovered_total", "Events taken over from the spool or the batches of an earlier life.", byDataset)
	descShipped   = desc("shipped_total", "Events acknowledged by Kafka.", byDataset)
	descAcked     = desc("acked_total", "Events that are safe in Kafka or in the spool.", byDataset)
	descSpooled   = desc("spooled_total", "Events written to the spool.", byDataset)
	descResumed   = desc("resumed_total", "Events read again after a kill that were safe already.", byDataset)
	descDropped   = desc("dropped_total", "Events dropped on purpose.", byWhy)
	descLost      = desc("lost_total", "Events lost.", byWhy)
	descWaiting   = desc("waiting", "Events in memory or in the spool.", nil)
	descMemory    = desc("memory_bytes", "Encoded events in memory.", []string{"source"})
	descSpool     = desc("spool_bytes", "Size of the spool.", nil)
	descJournal   = desc("journal_bytes", "Size of the journal.", nil)
	descBatches   = desc("batches_total", "Batches acknowledged by Kafka.", nil)
	descErrors    = desc("produce_errors_total", "Produce requests that came to nothing.", []string{"kind"})
	descDisk      = desc("disk_errors_total", "Writes of the journal or the spool that came to nothing.", []string{"file"})
	descDamaged   = desc("damaged_bytes_total", "Bytes of journal and spool that could not be read.", nil)
)

func desc(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("tidegate_ship_"+name, help, labels, nil)
}

// Describe makes a Shipper a prometheus.Collector.
func (s *Shipper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRead, descRecovered, descShipped, descAcked, descSpooled, descResumed, descDropped, descLost, descWaiting,
		descMemory, descSpool, descJournal, descBatches, descErrors, descDisk, descDamaged,
	} {
		ch <- d
	}
}

// Collect makes a Shipper a prometheus.Collector.
func (s *Shipper) Collect(ch chan<- prometheus.Metric) {
	b := &s.books
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for i := range datasets {
		name := pipeline.Dataset(i).Name()
		if i == 0 {
			name = "none"
		}
		count(descRead, b.read[i].Load(), name)
		count(descRecovered, b.recovered[i].Load(), name)
		count(descShipped, b.shipped[i].Load(), name)
		count(descAcked, b.acked[i].Load(), name)
		count(descSpooled, b.spooled[i].Load(), name)
		count(descResumed, b.resumed[i].Load(), name)
		for reason := range b.gone {
			d := descDropped
			if reason >= lostRefused {
				d = descLost
			}
			count(d, b.gone[reason][i].Load(), name, reasonNames[reason])
		}
	}
	gauge(descWaiting, float64(s.waiting()))
	gauge(descMemory, float64(s.wire.used.Load()), "wire")
	gauge(descMemory, float64(s.logBytes()), "logs")
	gauge(descSpool, float64(s.spool.bytes()))
	gauge(descJournal, float64(s.journal.bytes()))
	count(descBatches, b.batches.Load())
	count(descErrors, b.passing.Load(), "passing")
	count(descErrors, b.denied.Load(), "denied")
	count(descErrors, b.refused.Load(), "refused")
	count(descDisk, b.journalErr.Load(), "journal")
	count(descDisk, b.spoolErr.Load(), "spool")
	count(descDamaged, b.damaged.Load())
}
