package alerts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/metrics"
)

// A Publisher reads the alerts topic once for each destination and delivers the alerts to it.
type Publisher struct {
	cfg          Config
	client       *kafka.Client
	log          *slog.Logger
	metrics      publisherMetrics
	destinations []namedDestination
}

// A namedDestination is a destination with the name from the configuration.
type namedDestination struct {
	name string
	destination
}

type publisherMetrics struct {
	// By destination.
	read, sent, rejected, failures, superseded, resolved, evicted, outdated, undecodable, lost *prometheus.CounterVec
	// By destination and partition.
	open, pending, failing *prometheus.GaugeVec
}

func newPublisherMetrics(reg prometheus.Registerer) publisherMetrics {
	factory := metrics.With(reg)
	count := func(name, help string) *prometheus.CounterVec {
		return factory.CounterVec("tidegate_alerts_"+name+"_total", help, "destination")
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return factory.GaugeVec("tidegate_alerts_"+name, help, "destination", "partition")
	}
	return publisherMetrics{
		read: count("read", "Revisions of alerts read from the alerts topic, by destination."),
		sent: count("sent", "Notifications of alerts that the destination accepted, resends included."),
		rejected: count("rejected",
			"Notifications of alerts that the destination rejected and that became dead letters."),
		failures:   count("failures", "Attempts to notify a destination that failed and were repeated."),
		superseded: count("superseded", "Revisions of alerts that a newer revision replaced before they were due."),
		resolved:   count("resolved", "Alerts that ended because they were not updated for alerts.resolve_after."),
		outdated: count("outdated",
			"Revisions of alerts that were over and had had a newer revision; they were not delivered."),
		evicted: count("evicted", "Open alerts that were dropped because alerts.max_open was reached."),
		lost: count("lost_messages",
			"Messages of the alerts topic that were deleted before they were read, by destination."),
		undecodable: count("undecodable_messages",
			"Messages of the alerts topic that are not alerts and became dead letters."),
		open: gauge("open", "Alerts that are open, by destination and partition of the alerts topic."),
		pending: gauge("pending",
			"Open alerts whose newest revision is not delivered yet, by destination and partition of the alerts topic."),
		failing: gauge("failing",
			"Open alerts whose last notification failed and is repeated, by destination and partition of the alerts topic."),
	}
}

// initialize makes the counters of a destination visible as 0.
func (m publisherMetrics) initialize(destination string) {
	for _, counter := range []*prometheus.CounterVec{
		m.read, m.sent, m.rejected, m.failures, m.superseded, m.resolved, m.evicted, m.outdated, m.undecodable, m.lost,
	} {
		counter.WithLabelValues(destination)
	}
}

// removePartition removes the gauges of a partition that is no longer assigned.
func (m publisherMetrics) removePartition(destination, partition string) {
	m.open.DeleteLabelValues(destination, partition)
	m.pending.DeleteLabelValues(destination, partition)
	m.failing.DeleteLabelValues(destination, partition)
}

// NewPublisher returns a publisher to the destinations of cfg and, if onAlert is not nil, to onAlert. onAlert
// gets every new alert once; after a restart it gets each alert that is updated once more. NewPublisher reads
// the files that cfg names and connects to nothing yet.
func NewPublisher(
	cfg Config, client *kafka.Client, onAlert func(*pipeline.Alert), log *slog.Logger, reg prometheus.Registerer,
) (*Publisher, error) {
	if err := config.Join("alerts", cfg.Check()); err != nil {
		return nil, err
	}
	publisher := &Publisher{cfg: cfg, client: client, log: log, metrics: newPublisherMetrics(reg)}
	for i, destinationConfig := range cfg.Alertmanager {
		destination, err := newAlertmanager(destinationConfig, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("alerts.alertmanager[%d].%w", i, err)
		}
		publisher.destinations = append(publisher.destinations, namedDestination{destinationConfig.Name, destination})
	}
	for i, destinationConfig := range cfg.Webhooks {
		destination, err := newWebhook(destinationConfig, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("alerts.webhooks[%d].%w", i, err)
		}
		publisher.destinations = append(publisher.destinations, namedDestination{destinationConfig.Name, destination})
	}
	if onAlert != nil {
		publisher.destinations = append(publisher.destinations,
			namedDestination{callbackName, &callbackDestination{call: onAlert}})
	}
	for _, destination := range publisher.destinations {
		publisher.metrics.initialize(destination.name)
	}
	return publisher, nil
}

// Run delivers alerts until ctx ends. It returns an error only for what a retry cannot mend: in static
// assignment, another process that took the partitions.
func (p *Publisher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, destination := range p.destinations {
		wg.Go(func() {
			if err := p.runDestination(ctx, destination); err != nil {
				cancel(fmt.Errorf("publish alerts to %s: %w", destination.name, err))
			}
		})
	}
	wg.Wait()
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// runDestination reads the topic in the destination's own consumer group, with a deliverer for each partition
// that it is assigned.
func (p *Publisher) runDestination(ctx context.Context, destination namedDestination) error {
	log := p.log.With("destination", destination.name)
	cfg := consumer.Config{
		Client: p.client, Topic: p.client.Topic(pipeline.TopicAlerts),
		Group: GroupName(p.client.Config(), destination.name),
	}
	return consumer.Run(ctx, cfg, log, func(ctx context.Context, partition *consumer.Partition) error {
		return newDeliverer(p, destination, partition, log).deliverPartition(ctx)
	})
}
