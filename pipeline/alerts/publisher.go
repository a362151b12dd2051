package alerts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// A Publisher reads the alerts topic once for each destination and delivers.
type Publisher struct {
	cfg          Config
	client       *kafka.Client
	log          *slog.Logger
	metrics      *publisherMetrics
	destinations []namedDestination
}

type namedDestination struct {
	name string
	destination
}

type publisherMetrics struct {
	read, sent, rejected, failures, superseded, resolved, evicted, undecodable *prometheus.CounterVec
	open, pending                                                              *prometheus.GaugeVec
}

func newPublisherMetrics(reg prometheus.Registerer) *publisherMetrics {
	var all []prometheus.Collector
	count := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_alerts_" + name + "_total", Help: help}, []string{"destination"})
		all = append(all, v)
		return v
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_alerts_" + name, Help: help}, []string{"destination", "partition"})
		all = append(all, v)
		return v
	}
	m := &publisherMetrics{
		read:        count("read", "Revisions of alerts taken from the alerts topic."),
		sent:        count("sent", "Notices that were delivered, resends included."),
		rejected:    count("refused", "Notices that the destination refused for good; they are dead letters."),
		failures:    count("failures", "Attempts that failed and are repeated."),
		superseded:  count("superseded", "Revisions that a newer one of the same alert replaced before they were due."),
		resolved:    count("resolved", "Alerts that ended."),
		evicted:     count("evicted", "Open alerts that were forgotten because there were too many."),
		undecodable: count("bad_messages", "Messages of the alerts topic that are no alert; they are dead letters."),
		open:        gauge("open", "Alerts that are open."),
		pending:     gauge("pending", "Alerts whose newest revision waits for its interval."),
	}
	if reg != nil {
		reg.MustRegister(all...)
	}
	return m
}

// NewPublisher prepares the destinations of cfg and, where onAlert is not nil, one that hands it every new alert once, and every other when this life hears of it first, as far as its
// offset tells. It reads the files that cfg names; it speaks to nobody yet.
func NewPublisher(cfg Config, client *kafka.Client, onAlert func(*pipeline.Alert), log *slog.Logger, reg prometheus.Registerer) (*Publisher, error) {
	if errs := cfg.Check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	p := &Publisher{cfg: cfg, client: client, log: log, metrics: newPublisherMetrics(reg)}
	for i, c := range cfg.Alertmanager {
		d, err := newAlertmanager(c, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("alerts.alertmanager[%d].%w", i, err)
		}
		p.destinations = append(p.destinations, namedDestination{c.Name, d})
	}
	for i, c := range cfg.Webhooks {
		d, err := newWebhook(c, cfg.Timeout)
		if err != nil {
			return nil, fmt.Errorf("alerts.webhooks[%d].%w", i, err)
		}
		p.destinations = append(p.destinations, namedDestination{c.Name, d})
	}
	if onAlert != nil {
		p.destinations = append(p.destinations, namedDestination{callbackName, &callbackDestination{call: onAlert}})
	}
	return p, nil
}

// Run delivers until ctx ends. It returns an error only for what will not pass: in static assignment, another process that took
// the partitions.
func (p *Publisher) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, d := range p.destinations {
		wg.Go(func() {
			cfg := consumer.Config{
				Client: p.client, Topic: p.client.Topic(pipeline.TopicAlerts), Group: p.client.Config().Topic + "-alerts-" + d.name,
			}
			log := p.log.With("destination", d.name)
			err := consumer.Run(ctx, cfg, log, func(ctx context.Context, part *consumer.Partition) error {
				return newDeliverer(p, d, part, log).run(ctx)
			})
			if err != nil {
				cancel(fmt.Errorf("publish alerts to %s: %w", d.name, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
