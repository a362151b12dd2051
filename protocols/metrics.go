package protocols

import (
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// setMetrics are the counters of the framework. The sets of one registry share them.
type setMetrics struct {
	connections, events, errors, resyncs, panics *prometheus.CounterVec
	anomalies, dropped                           *prometheus.CounterVec
	undetected                                   prometheus.Counter
}

// newSetMetrics returns the counters, registered at reg.
func newSetMetrics(reg prometheus.Registerer) *setMetrics {
	factory := metrics.With(reg)
	const prefix = "tidegate_protocols_"
	return &setMetrics{
		connections: factory.CounterVec(prefix+"connections_total",
			"Connections whose protocol was recognised.", "protocol"),
		events: factory.CounterVec(prefix+"events_total",
			"Events that parsers emitted.", "protocol"),
		errors: factory.CounterVec(prefix+"errors_total",
			"Parse errors: bytes that the protocol does not allow.", "protocol"),
		resyncs: factory.CounterVec(prefix+"resyncs_total",
			"Times that a parser found the start of a message again after a gap or an error.", "protocol"),
		panics: factory.CounterVec(prefix+"panics_total",
			"Panics of parsers. The bytes of the connection up to the next turn are ignored.", "protocol"),
		anomalies: factory.CounterVec(prefix+"anomalies_total",
			"Protocol anomalies and exceeded limits in parsed connections, by reason.", "protocol", "reason"),
		dropped: factory.CounterVec(prefix+"dropped_bytes_total",
			"Bytes of recognised connections that were not parsed, by reason.", "protocol", "reason"),
		undetected: factory.Counter(prefix+"undetected_total",
			"Connections of an unknown protocol."),
	}
}

// counters are the counters of one protocol. anomalies and dropped have the reasons that have occurred.
type counters struct {
	connections, events, errors, resyncs, panics prometheus.Counter
	anomalies, dropped                           map[string]prometheus.Counter
	anomaliesVec, droppedVec                     *prometheus.CounterVec
}

// countersOf returns the counters of a protocol. They start at 0 before the protocol is seen.
func (m *setMetrics) countersOf(protocol string) counters {
	label := prometheus.Labels{"protocol": protocol}
	dropped, droppedVec := map[string]prometheus.Counter{}, m.dropped.MustCurryWith(label)
	for _, reason := range []string{"gap", "incomplete", "resync", "too_long"} {
		dropped[reason] = droppedVec.WithLabelValues(reason)
	}
	return counters{
		connections:  m.connections.WithLabelValues(protocol),
		events:       m.events.WithLabelValues(protocol),
		errors:       m.errors.WithLabelValues(protocol),
		resyncs:      m.resyncs.WithLabelValues(protocol),
		panics:       m.panics.WithLabelValues(protocol),
		anomalies:    map[string]prometheus.Counter{},
		dropped:      dropped,
		anomaliesVec: m.anomalies.MustCurryWith(label),
		droppedVec:   droppedVec,
	}
}

// addCount adds n to the counter of reason. reason must be a constant and never come from the input: each
// value is a new time series.
func addCount(counters map[string]prometheus.Counter, vec *prometheus.CounterVec, reason string, n int) {
	if n <= 0 {
		return
	}
	counter, ok := counters[reason]
	if !ok {
		counter = vec.WithLabelValues(reason)
		counters[reason] = counter
	}
	counter.Add(float64(n))
}
