package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
)

func (p *process) startBroker(ctx context.Context) error {
	b, err := embedded.StartBroker(ctx, p.cfg.Embedded.Broker, p.log, p.reg)
	if err != nil {
		return err
	}
	p.broker = b
	p.lifecycle.addStopHook("broker", func(context.Context) error { return b.Close() })
	return nil
}

func (p *process) startStore(ctx context.Context) error {
	start := time.Now()
	s, err := embedded.StartStore(ctx, p.cfg.Embedded.Store, p.log, p.reg)
	if err != nil {
		return err
	}
	p.storeServer = s
	p.lifecycle.addStopHook("store", s.Stop)
	p.log.Info("embedded clickhouse answers", "took", time.Since(start))
	return nil
}

// connectKafka makes sure of the topics. The embedded broker is named by its address, so that `run --only broker,store` serves
// processes with the same configuration. A collector alone does not wait for Kafka: what it sees meanwhile is kept by the shipper,
// which makes sure of its topic by itself.
func (p *process) connectKafka(ctx context.Context, roles role) error {
	if p.cfg.embeddedBroker() {
		if p.broker != nil {
			p.cfg.Embedded.Broker.Addr = p.broker.Addr() // it may have picked a port
		}
		p.cfg.Kafka.Brokers, p.cfg.Kafka.Assign = []string{p.cfg.Embedded.Broker.Addr}, kafka.AssignStatic
		p.cfg.Kafka.Partitions, p.cfg.Kafka.ReplicationFactor = p.cfg.Embedded.Broker.Partitions, 1
	}
	k, err := kafka.New(p.cfg.Kafka)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	p.kafka = k
	if roles&(roleEngine|roleAlerts) == 0 {
		return nil
	}
	return p.retryStartup(ctx, "kafka", func(ctx context.Context) error {
		_, err := k.EnsureTopics(ctx)
		return err
	}, func(err error) bool { return kafka.Classify(err) != kafka.Retriable })
}

func (p *process) connectStore(ctx context.Context) error {
	return p.retryStartup(ctx, "clickhouse", func(ctx context.Context) error {
		cfg, err := p.storeConfig()
		if err != nil {
			return err
		}
		cfg.TTLDays, cfg.AlertTTLDays = p.cfg.ClickHouse.TTLDays, p.cfg.ClickHouse.AlertTTLDays // of an embedded one too
		s, err := clickhouse.Open(ctx, cfg, p.log, p.reg)
		if err != nil {
			return err
		}
		if err := s.Migrate(ctx); err != nil {
			_ = s.Close()
			return err
		}
		p.store = s
		p.lifecycle.addStopHook("store connection", func(context.Context) error { return s.Close() })
		return nil
	}, func(err error) bool { return errors.Is(err, pipeline.ErrRowsRejected) || clickhouse.IsDenied(err) })
}

// storeConfig is how the store is reached; one that another process embeds may still be starting.
func (p *process) storeConfig() (clickhouse.Config, error) {
	switch {
	case p.storeServer != nil:
		return p.storeServer.Config(), nil
	case p.cfg.embeddedStore():
		return embedded.StoreAdmin(p.cfg.Embedded.Store.Dir)
	}
	return p.cfg.ClickHouse, nil
}

// retryStartup tries until it works: what is away comes back, and a collector that gives up is worse than one that waits. Each new
// trouble is told once. fatal tells what no waiting mends.
func (p *process) retryStartup(ctx context.Context, what string, try func(context.Context) error, fatal func(error) bool) error {
	told := ""
	for wait := 200 * time.Millisecond; ; wait = min(wait*2, 5*time.Second) {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if fatal(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err.Error() != told {
			told = err.Error()
			p.log.Error("waiting for what is away", "part", what, "err", err)
		}
		if !sleepUntilDone(ctx, wait) {
			return ctx.Err()
		}
	}
}

// lockState keeps a second process of the same role away from a broker on which partitions are assigned statically. It is held until
// the process ends, however it does.
func (p *process) lockState(name string) error {
	path := filepath.Join(p.cfg.DataDir, name+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("another process is the %s of this state folder (%s is locked)", name, path)
	}
	p.lifecycle.addStopHook(name+" lock", func(context.Context) error { return f.Close() })
	return nil
}
