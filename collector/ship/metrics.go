package ship

import (
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/kafka"
)

// The metrics of a Shipper. Those with the label dataset have the values of the Ledger.
var (
	byDataset   = []string{"dataset"}
	byReason    = []string{"dataset", "reason"}
	descriptors = []*prometheus.Desc{
		descRead, descRecovered, descDelivered, descSafe, descSpooled, descReread, descDropped, descLost,
		descUnconfirmed,
		descBuffered, descMissing, descBuffer, descSpool, descJournal, descBatches, descErrors, descDisk, descUnreadable,
	}

	descRead = describe("events_read_total", "Events that sources shipped to Kafka.", byDataset)

	descRecovered = describe("events_recovered_total",
		"Events of an earlier process, read from its spool or missing from its unacknowledged batches.", byDataset)

	descDelivered = describe("events_delivered_total", "Events acknowledged by Kafka.", byDataset)

	descSafe = describe("events_safe_total", "Events acknowledged by Kafka or written to the spool.", byDataset)

	descSpooled = describe("events_spooled_total", "Events written to the spool on disk.", byDataset)

	descReread = describe("events_reread_total",
		"Log lines read again after a restart that were delivered or spooled before; they are not sent again.",
		byDataset)

	descDropped = describe("events_dropped_total",
		"Events dropped on purpose before delivery to Kafka, by reason.", byReason)

	descLost = describe("events_lost_total",
		"Events lost before delivery to Kafka, by reason.", byReason)

	descUnconfirmed = describe("events_unconfirmed_total",
		"Log lines that an earlier process may have produced before it was killed, and whose file was not found again: "+
			"they are in Kafka or lost.", byDataset)

	descBuffered = describe("events_buffered", "Events that wait for Kafka, in memory or in the spool.", nil)

	descMissing = describe("missing_partitions",
		"Partitions for which events wait and which the topic does not have.", nil)

	descBuffer = describe("buffer_bytes",
		"Bytes of encoded events in memory that wait for Kafka, by kind of source.", []string{"source"})

	descSpool = describe("spool_bytes", "Size of the spool on disk, in bytes.", nil)

	descJournal = describe("journal_bytes", "Size of the journal on disk, in bytes.", nil)

	descBatches = describe("batches_delivered_total", "Batches acknowledged by Kafka.", nil)

	descErrors = describe("produce_errors_total", "Requests to Kafka that failed, by kind of error.",
		[]string{"kind"})

	descDisk = describe("disk_errors_total", "Writes of the journal or the spool that failed.", []string{"file"})

	descUnreadable = describe("unreadable_bytes_total",
		"Bytes of the journal or the spool that could not be read and were kept in .unreadable files.",
		[]string{"file"})
)

func describe(name, help string, labels []string) *prometheus.Desc {
	return prometheus.NewDesc("tidegate_collector_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (s *Shipper) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descriptors {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *Shipper) Collect(ch chan<- prometheus.Metric) {
	counter := func(descriptor *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(descriptor, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(descriptor *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(descriptor, prometheus.GaugeValue, v, labels...)
	}

	counters := &s.counters
	for i := range pipeline.Datasets {
		name := pipeline.Datasets[i].Name
		if name == "" {
			name = "none"
		}
		counter(descRead, counters.read[i].Load(), name)
		counter(descRecovered, counters.recovered[i].Load(), name)
		counter(descDelivered, counters.delivered[i].Load(), name)
		counter(descSafe, counters.safe[i].Load(), name)
		counter(descSpooled, counters.spooled[i].Load(), name)
		counter(descReread, counters.reread[i].Load(), name)
		counter(descUnconfirmed, counters.unconfirmed[i].Load(), name)
		for reason := range counters.discarded {
			descriptor := descDropped
			if isLoss(reason) {
				descriptor = descLost
			}
			counter(descriptor, counters.discarded[reason][i].Load(), name, reasonNames[reason])
		}
	}

	gauge(descBuffered, float64(s.bufferedEvents()))
	missing, _ := s.missingPartitions()
	gauge(descMissing, float64(len(missing)))
	gauge(descBuffer, float64(s.packetBudget.used.Load()), "packets")
	gauge(descBuffer, float64(s.fileBytes()), "files")
	gauge(descSpool, float64(s.spool.Bytes()))
	gauge(descJournal, float64(s.journal.Bytes()))
	counter(descBatches, counters.batches.Load())
	for class := range counters.produceErrors {
		counter(descErrors, counters.produceErrors[class].Load(), kafka.ErrorClass(class).String())
	}
	counter(descDisk, s.journal.Errors(), "journal")
	counter(descDisk, s.spool.Errors(), "spool")
	counter(descUnreadable, s.journal.Unreadable(), "journal")
	counter(descUnreadable, s.spool.Unreadable(), "spool")
}
