package sessions

import (
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/links"
	"tidegate/collector/reassembly"
	"tidegate/pipeline/metrics"
)

type counter = prometheus.Counter

// tableMetrics are shared by all Tables of a registry. Counts that change with each packet are kept in the
// Table's packetCounts; Table.flushCounters adds them to the metrics at intervals.
type tableMetrics struct {
	packets  [numResults]counter
	open     prometheus.Gauge
	buffered prometheus.Gauge
	opened   [3]counter // TCP, UDP, packets that are not read
	closed   map[string]counter
	gaps     [reassembly.NumGapReasons]counter
	gapBytes [reassembly.NumGapReasons]counter

	segmentsOutside, segmentsBeforeStart, segmentsLate counter
	segmentsChecksum                                   counter
	fragmentsTimeout, fragmentsLimit, fragmentsStop    counter
	conflicts, urgentBytes, droppedCopies              counter

	spoofedPackets  counter
	unopenedTunnels map[links.Encapsulation]counter
	undecoded       undecodedCounters

	duplicates      counter
	duplicateEvents counter
	takeovers       counter
	continued       counter
	unreportedBytes counter
	differingCopies counter
	pendingSessions map[decision]counter
	panics          counter
}

// newTableMetrics returns the metrics of reg. Tables of one registry share them.
func newTableMetrics(reg prometheus.Registerer) *tableMetrics {
	factory := metrics.With(reg)
	m := &tableMetrics{
		open: factory.Gauge("tidegate_sessions_open",
			"Sessions in the session tables of all workers, including those that ended a few seconds ago."),
		buffered: factory.Gauge("tidegate_sessions_buffered_bytes",
			"Memory of TCP segments that wait because earlier bytes are missing, in bytes."),
		conflicts: factory.Counter("tidegate_sessions_overlap_conflicts_total",
			"TCP segments and IP fragments that overlap earlier ones and have different bytes."),
		droppedCopies: factory.Counter("tidegate_sessions_dropped_copies_total",
			"Parts of payload that their receiver had not acknowledged and that were dropped from the memory for the "+
				"comparison with what is sent again, because of a limit."),
		urgentBytes: factory.Counter("tidegate_sessions_urgent_bytes_total",
			"Bytes of TCP urgent data, which receivers do not read as part of the stream."),
		duplicates: factory.Counter("tidegate_sessions_nat_duplicates_total",
			"Sessions that were not reported because another interface reports the same connection."),
		duplicateEvents: factory.Counter("tidegate_sessions_nat_duplicate_events_total",
			"Events that were dropped because their session is a duplicate."),
		takeovers: factory.Counter("tidegate_sessions_takeovers_total",
			"Sessions that are reported from the middle on, because the copy of the connection on another interface "+
				"that was reported before saw no more packets."),
		continued: factory.Counter("tidegate_sessions_continued_total",
			"Sessions that are reported from the middle on, because a connection went on after its end was seen."),
		unreportedBytes: factory.Counter("tidegate_sessions_unreported_bytes_total",
			"Payload bytes that no session reports: a copy of a connection was not reported, and the copy that was "+
				"reported did not see them."),
		differingCopies: factory.Counter("tidegate_sessions_differing_copies_total",
			"Sessions that are reported although another interface reports a connection with their addresses, because "+
				"its payload is not theirs."),
		spoofedPackets: factory.Counter("tidegate_sessions_spoofed_packets_total",
			"Packets on bridges whose source address is not that of their sender, as its MAC address shows."),
		panics: factory.Counter("tidegate_sessions_panics_total",
			"Panics while a packet was handled. After a panic the worker has an empty session table."),
		closed: map[string]counter{}, pendingSessions: map[decision]counter{},
	}
	m.makeLabelled(factory)
	return m
}

// makeLabelled makes the counters of each label value, so that they start at 0 and the hot path looks none
// up.
func (m *tableMetrics) makeLabelled(factory metrics.Factory) {
	packets := factory.CounterVec("tidegate_sessions_packets_total", "Packets handled, by result.", "result")
	for result, name := range resultNames {
		m.packets[result] = packets.WithLabelValues(name)
	}

	tunnels := factory.CounterVec("tidegate_sessions_unopened_tunnels_total",
		"Packets with another packet inside that was not read, because the tunnel is neither one of this host's nor "+
			"on an interface of capture.underlays, by type of tunnel.", "type")
	m.unopenedTunnels = map[links.Encapsulation]counter{}
	for _, kind := range links.Encapsulations() {
		m.unopenedTunnels[kind] = tunnels.WithLabelValues(kind.String())
	}

	m.undecoded = newUndecodedCounters(factory)
	opened := factory.CounterVec("tidegate_sessions_opened_total",
		"Sessions that began, by transport; none: packets that could not be read.", "transport")
	m.opened = [3]counter{opened.WithLabelValues("tcp"), opened.WithLabelValues("udp"), opened.WithLabelValues("none")}

	closed := factory.CounterVec("tidegate_sessions_closed_total", "Sessions that ended, by state at the end.",
		"state")
	for _, state := range states {
		m.closed[state] = closed.WithLabelValues(state)
	}

	gaps := factory.CounterVec("tidegate_sessions_gaps_total",
		"Gaps in the byte streams of sessions, by the reason why the bytes were given up.", "reason")
	gapBytes := factory.CounterVec("tidegate_sessions_gap_bytes_total",
		"Bytes missing from the byte streams of sessions, by the reason why they were given up.", "reason")
	for reason := range reassembly.NumGapReasons {
		m.gaps[reason] = gaps.WithLabelValues(reason.String())
		m.gapBytes[reason] = gapBytes.WithLabelValues(reason.String())
	}

	segments := factory.CounterVec("tidegate_sessions_dropped_segments_total",
		"TCP segments, and UDP datagrams with a wrong checksum, that were dropped, by reason.", "reason")
	m.segmentsOutside = segments.WithLabelValues("outside_window")
	m.segmentsBeforeStart = segments.WithLabelValues("before_start")
	m.segmentsLate = segments.WithLabelValues("late")
	m.segmentsChecksum = segments.WithLabelValues("checksum")

	fragments := factory.CounterVec("tidegate_sessions_dropped_fragments_total",
		"IP fragments that were dropped because their datagram stayed incomplete, by reason.", "reason")
	m.fragmentsTimeout = fragments.WithLabelValues("timeout")
	m.fragmentsLimit = fragments.WithLabelValues("limit")
	m.fragmentsStop = fragments.WithLabelValues("stop")

	pending := factory.CounterVec("tidegate_sessions_nat_pending_sessions_total",
		"Sessions whose events waited until it was decided whether the session is a duplicate, by reason.",
		"decided")
	for _, why := range decisions {
		m.pendingSessions[why] = pending.WithLabelValues(string(why))
	}
}

// packetCounts holds the counts of a Table since the last call of flushCounters.
type packetCounts struct {
	results        [numResults]uint64
	pending        int // packets since the last call of flushCounters
	open, buffered int // the share of this Table in the gauges
}

// flushCounters adds the counts of the Table to the metrics.
func (t *Table) flushCounters() {
	t.counts.pending = 0
	for result, n := range t.counts.results {
		if n > 0 {
			t.metrics.packets[result].Add(float64(n))
			t.counts.results[result] = 0
		}
	}

	// The gauges are shared by all Tables: each Table adds the change of its share.
	if n := len(t.timers); n != t.counts.open {
		t.metrics.open.Add(float64(n - t.counts.open))
		t.counts.open = n
	}
	if n := t.pool.Used(); n != t.counts.buffered {
		t.metrics.buffered.Add(float64(n - t.counts.buffered))
		t.counts.buffered = n
	}
}
