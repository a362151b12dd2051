package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

// A blocker holds why one dependency keeps this process from its work. It is safe for concurrent use.
type blocker struct {
	mu  sync.Mutex
	err error
}

func (b *blocker) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *blocker) get() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// checkReady returns an error until every component runs, and while one of them cannot do its work. The error
// has a line for each reason.
func (p *process) checkReady() error {
	var reasons []error
	if !p.started.Load() {
		reasons = append(reasons, errors.New("starting"))
	}
	return errors.Join(append(reasons, p.startBlocker.get(), p.kafkaBlocker(), p.storeBlocker.get())...)
}

// kafkaBlocker returns why Kafka cannot be used.
func (p *process) kafkaBlocker() error {
	if !p.started.Load() {
		return nil // p.kafka and p.shipper may not be set yet
	}
	var err error
	if p.kafka != nil {
		err = p.kafka.Unavailable()
	}
	if err == nil && p.shipper != nil {
		err = p.shipper.Unavailable()
	}
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	return nil
}

// Times of monitorStore.
const (
	storePingInterval = 5 * time.Second
	storePingTimeout  = 4 * time.Second
)

// monitorStore pings the store until ctx ends, for /readyz and a metric. Failed inserts are logged by the
// engine.
func (p *process) monitorStore(ctx context.Context) error {
	up := metrics.With(p.reg).Gauge("tidegate_clickhouse_up", "1 while ClickHouse answers, else 0.")
	for {
		pingCtx, cancel := context.WithTimeout(ctx, storePingTimeout)
		err := p.store.Ping(pingCtx)
		cancel()
		if err != nil {
			up.Set(0)
			p.storeBlocker.set(fmt.Errorf("clickhouse: %w", err))
		} else {
			up.Set(1)
			p.storeBlocker.set(nil)
		}
		if retry.Sleep(ctx, storePingInterval) != nil {
			return nil
		}
	}
}
