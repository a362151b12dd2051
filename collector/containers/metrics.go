package containers

import (
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/metrics"
)

// registryMetrics are the metrics of a Registry.
type registryMetrics struct {
	events     *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	errors     *prometheus.CounterVec
	known      prometheus.Gauge
	excluded   prometheus.Gauge
	uncaptured prometheus.Gauge
	connected  prometheus.Gauge
}

// newMetrics returns the metrics of reg.
func newMetrics(reg prometheus.Registerer) registryMetrics {
	with := metrics.With(reg)
	return registryMetrics{
		events: with.CounterVec("tidegate_containers_events_total",
			"Container events read from the Docker API, by action.", "action"),
		dropped: with.LabelledCounters("tidegate_containers_dropped_total",
			"Container events that were not shipped, and container labels and removed containers that were not kept, by "+
				"reason.", "reason",
			"label_too_long", "memory", "memory_limit", "repeated", "too_many_addresses", "too_many_labels", "too_many_removed"),
		errors: with.LabelledCounters("tidegate_containers_errors_total",
			"Calls of the Docker API that failed, by call.", "call", "events", "inspect", "list", "networks"),
		known: with.Gauge("tidegate_containers_known",
			"Containers whose metadata is kept, including those that stopped less than keep_after_exit ago."),
		excluded: with.Gauge("tidegate_containers_excluded",
			"Containers whose logs are not read, because of containers.include, exclude or exclude_labels, or because it "+
				"is the collector's own."),
		uncaptured: with.Gauge("tidegate_containers_uncaptured_networks",
			"Docker networks without a bridge (macvlan, ipvlan, plugins), whose inner traffic cannot be captured."),
		connected: with.Gauge("tidegate_containers_api_connected",
			"1 while the stream of events of the Docker API is open, 0 otherwise."),
	}
}
