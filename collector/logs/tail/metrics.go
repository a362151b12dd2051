package tail

import (
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// groupMetrics are the metrics of all groups of a process.
type groupMetrics struct {
	bytes, records, lines, parts, resumed prometheus.Counter
	dropped, malformed, errors            *prometheus.CounterVec
}

// newMetrics returns the metrics of reg. Groups of one registry share them.
func newMetrics(reg prometheus.Registerer) groupMetrics {
	with := metrics.With(reg)
	return groupMetrics{
		bytes: with.Counter("tidegate_logs_bytes_total",
			"Bytes of log files that were read, including those read again after a restart."),
		records: with.Counter("tidegate_logs_records_total",
			"Records of log files that were read."),
		lines: with.Counter("tidegate_logs_lines_total",
			"Log lines that were shipped."),
		parts: with.Counter("tidegate_logs_parts_total",
			"Records of log files that were joined with others into one line."),
		resumed: with.Counter("tidegate_logs_resumed_total",
			"Log lines that were read again after a restart and had been shipped before it."),
		dropped: with.LabelledCounters("tidegate_logs_dropped_total",
			"Parts of log files that were not shipped, by reason: over_cap, nul, cut and removed in bytes, the others in lines.",
			"reason", "before_start", "blank", "copy_of_a_file", "cut", "nul", "over_cap", "removed"),
		malformed: with.LabelledCounters("tidegate_logs_malformed_total",
			"Records of log files that are not of the format of their log, by reason; their text is shipped.", "reason",
			"bad_gzip", "decoder_panic", "file_truncated", "no_time", "not_a_record", "too_long", "torn"),
		errors: with.LabelledCounters("tidegate_logs_errors_total",
			"Calls of the log reader that failed, by call.", "call",
			"inotify_init", "list", "no_descriptor", "open", "overflow", "read", "ship", "watch"),
	}
}

// exportGauges exports what g holds until the result is called.
func (g *Group) exportGauges(reg prometheus.Registerer) (stop func()) {
	with := metrics.With(reg)
	funcs := []*metrics.Func{
		with.GaugeFunc("tidegate_logs_lag_bytes",
			"Bytes of log files that are not read yet, those that cannot be opened included.",
			func() float64 { return float64(g.lag.Load()) }),
		with.GaugeFunc("tidegate_logs_open_files",
			"Log files that are held open.",
			func() float64 { return float64(g.budget.openFiles.Load()) }),
		with.GaugeFunc("tidegate_logs_tailed",
			"Logs that are being read; the rotated files of one container are one log.",
			func() float64 { return float64(g.tailed.Load()) }),
		with.GaugeFunc("tidegate_logs_short_of_descriptors",
			"Logs of which a file waits for a descriptor.",
			func() float64 { return float64(g.short.Load()) }),
		with.GaugeFunc("tidegate_logs_polled",
			"Logs that are polled, because inotify has no free instance or watch for their folder.",
			func() float64 { return float64(g.polled.Load()) }),
	}
	return func() {
		for _, f := range funcs {
			f.Close()
		}
	}
}

// A tally holds the counts of a tailer since the last addTally, so that the hot path writes no shared memory.
type tally struct {
	bytes, records, lines, parts, resumed               uint64
	overCap, nul, cut, blank, beforeStart               uint64
	malformed, tooLong, torn, noTime, truncated, copies uint64
	panics                                              uint64 // of decoders
}

// addTally adds t to the metrics and clears it.
func (m *groupMetrics) addTally(t *tally) {
	add := func(counter prometheus.Counter, n uint64) {
		if n > 0 {
			counter.Add(float64(n))
		}
	}
	addLabelled := func(counters *prometheus.CounterVec, n uint64, label string) {
		if n > 0 {
			counters.WithLabelValues(label).Add(float64(n))
		}
	}
	// Counts of what was read and shipped.
	add(m.bytes, t.bytes)
	add(m.records, t.records)
	add(m.lines, t.lines)
	add(m.parts, t.parts)
	add(m.resumed, t.resumed)

	// What was left out, in bytes or lines.
	addLabelled(m.dropped, t.overCap, "over_cap")
	addLabelled(m.dropped, t.nul, "nul")
	addLabelled(m.dropped, t.cut, "cut")
	addLabelled(m.dropped, t.blank, "blank")
	addLabelled(m.dropped, t.beforeStart, "before_start")
	addLabelled(m.dropped, t.copies, "copy_of_a_file")

	// Records that are not of the format.
	addLabelled(m.malformed, t.malformed, "not_a_record")
	addLabelled(m.malformed, t.tooLong, "too_long")
	addLabelled(m.malformed, t.torn, "torn")
	addLabelled(m.malformed, t.noTime, "no_time")
	addLabelled(m.malformed, t.truncated, "file_truncated")
	addLabelled(m.malformed, t.panics, "decoder_panic")
	*t = tally{}
}
