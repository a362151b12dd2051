package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"tidegate/detectors"
	"tidegate/models"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
)

func (p *process) startEngine(ctx context.Context) error {
	var store engine.Store = engine.DiscardStore{}
	if !p.storeless {
		if err := p.connectStore(ctx); err != nil {
			return err
		}
		store = p.store
	}
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lockState("engine"); err != nil {
			return err
		}
	}
	var err error
	p.engine, err = engine.New(p.cfg.Engine, engine.Deps{Kafka: p.kafka, Store: store, Bundle: p.detectors.Bundle, Failpoint: killFailpoint()}, p.log, p.reg)
	if err != nil {
		return err
	}
	p.lifecycle.startComponent("detectors", p.detectors.Watch)
	p.lifecycle.startComponent("engine", p.engine.Run)
	p.lifecycle.addStopHook("what is in kafka", p.drainShipped)
	return nil
}

// killFailpoint is for tests: it kills the process, as kill -9 does, when the engine comes to the named place of a block for the nth time.
func killFailpoint() func(string) {
	name, nth, ok := strings.Cut(os.Getenv("TIDEGATE_KILL_AT"), ":")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil {
		return nil
	}
	var left atomic.Int64 // the workers share it
	left.Store(n)
	return func(at string) {
		if at == name && left.Add(-1) <= 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// drainShipped waits, within the time that a stop may take, until the engine has read what the collector of this process has shipped.
func (p *process) drainShipped(ctx context.Context) error {
	if p.shipper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	for {
		lag, err := p.consumerLag(ctx)
		if err != nil || lag == 0 || !sleepUntilDone(ctx, 50*time.Millisecond) {
			return nil // what is left is in Kafka and is read next time
		}
	}
}

func (p *process) consumerLag(ctx context.Context) (int64, error) {
	if p.engine == nil {
		return 0, nil
	}
	return p.engine.Lag(ctx)
}

func (p *process) startAlerts() error {
	var onAlert func(*pipeline.Alert)
	if p.terminal != nil {
		onAlert = func(a *pipeline.Alert) {
			<-p.welcomePrinted // what an earlier life left over comes below what this one says of itself
			p.terminal.Printf("%s", alertLine(a))
		}
	}
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lockState("alerts"); err != nil {
			return err
		}
	}
	pub, err := alerts.NewPublisher(p.cfg.Alerts, p.kafka, onAlert, p.log, p.reg)
	if err != nil {
		return err
	}
	p.lifecycle.startComponent("alerts", pub.Run)
	return nil
}

// detectorConfig returns the part of c that detectors read.
func detectorConfig(c *Config) detectors.Config {
	return detectors.Config{Rules: c.Rules, Feeds: c.Feeds, Classifier: c.Classifier, Model: models.GeneratedDomains}
}
