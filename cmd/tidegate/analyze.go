package main

import (
	"context"
	"time"

	"tidegate/detectors"
	"tidegate/models"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
)

// startEngine starts the detectors and the engine: events topic → evaluation → store → alerts topic, and for
// rules over several events → signals topic → windows → alerts topic. Without
// a store the events are evaluated and discarded.
func (p *process) startEngine(ctx context.Context) error {
	var store engine.Store = engine.DiscardStore{}
	if !p.storeless {
		if err := p.connectStore(ctx); err != nil {
			return err
		}
		store = p.store
	}

	// Static assignment has no consumer group that keeps a second engine away from the partitions.
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lockDataDir("engine"); err != nil {
			return err
		}
	}

	deps := engine.Deps{Kafka: p.kafka, Store: store, Bundle: p.detectors.Bundle, Failpoint: killFailpoint()}
	var err error
	if p.engine, err = engine.New(p.cfg.Engine, deps, p.log, p.reg); err != nil {
		return err
	}

	p.lifecycle.startComponent("detectors", p.detectors.Watch)
	if err := p.startBundles(ctx); err != nil {
		return err
	}
	p.lifecycle.startComponent("correlation", p.engine.Correlate)
	p.lifecycle.startComponent("engine", p.engine.Run)
	p.lifecycle.addStopHook("engine drain", p.drainShipped)
	return nil
}

// drainTimeout bounds drainShipped. It leaves time for the components that stop after the drain.
const drainTimeout = 4 * time.Second

// drainShipped waits until the engine has read everything that the collector of this process has shipped.
// What it does not read in time stays in Kafka for the next start.
func (p *process) drainShipped(ctx context.Context) error {
	if p.shipper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	for {
		lag, err := p.consumerLag(ctx)
		if err != nil || lag == 0 {
			return nil
		}
		if retry.Sleep(ctx, 50*time.Millisecond) != nil {
			return nil
		}
	}
}

// consumerLag returns how many messages of the events topic the engine of this process has not read; 0 if it
// has no engine.
func (p *process) consumerLag(ctx context.Context) (int64, error) {
	if p.engine == nil {
		return 0, nil
	}
	return p.engine.Lag(ctx)
}

// detectorConfig returns the part of the configuration that the detectors read.
func detectorConfig(cfg *Config) detectors.Config {
	return detectors.Config{
		Rules: cfg.Rules, Feeds: cfg.Feeds, Classifier: cfg.Classifier, Model: models.GeneratedDomains,
	}
}
