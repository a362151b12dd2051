package logs

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// sourceMetrics are the metrics of a Source beside those of package tail.
type sourceMetrics struct {
	redacted  prometheus.Counter
	truncated prometheus.Counter
	panics    prometheus.Counter
	unread    *prometheus.CounterVec
}

// newMetrics returns the metrics of reg. Sources of one registry share them.
func newMetrics(reg prometheus.Registerer) sourceMetrics {
	with := metrics.With(reg)
	return sourceMetrics{
		redacted: with.Counter("tidegate_logs_redacted_total", "Log lines in which a secret was redacted."),
		truncated: with.Counter("tidegate_logs_truncated_total",
			"Log lines longer than logs.max_line_bytes, of which the head and the tail are kept."),
		panics: with.Counter("tidegate_logs_panics_total",
			"Log lines whose text could not be handled because of a bug in tidegate; their events lack it."),
		unread: with.LabelledCounters("tidegate_logs_unread_containers_total",
			"Containers whose log is not read because their logging driver keeps no json-file.", "driver", slices.Concat(drivers, []string{otherDriver})...),
	}
}
