package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/retry"
	"tidegate/pipeline/statedir"
)

// startBroker starts the embedded broker.
func (p *process) startBroker(ctx context.Context) error {
	broker, err := embedded.StartBroker(ctx, p.cfg.Embedded.Broker, p.log, p.reg)
	if err != nil {
		return err
	}
	p.broker = broker
	p.lifecycle.addStopHook("broker", func(context.Context) error { return broker.Close() })
	return nil
}

// startStore starts the embedded ClickHouse and returns when it answers.
func (p *process) startStore(ctx context.Context) error {
	start := time.Now()
	storeServer, err := embedded.StartStore(ctx, p.cfg.Embedded.Store, p.log, p.reg)
	if err != nil {
		return err
	}
	p.storeServer = storeServer
	p.lifecycle.addStopHook("store", storeServer.Stop)
	p.log.Info("embedded clickhouse ready", "took", time.Since(start))
	return nil
}

// connectKafka makes the client and, for an engine or a publisher, creates the topics. The embedded broker is
// reached by its address, so that `run --only broker,store` serves other processes with the same
// configuration. A collector alone does not wait for Kafka: the shipper buffers the events and creates its
// topic itself.
func (p *process) connectKafka(ctx context.Context, roles role) error {
	if p.cfg.embeddedBroker() {
		if p.broker != nil {
			p.cfg.Embedded.Broker.Addr = p.broker.Addr() // port 0 in the configuration has become a number
		}
		p.cfg.Kafka.Brokers, p.cfg.Kafka.Assign = []string{p.cfg.Embedded.Broker.Addr}, kafka.AssignStatic
		p.cfg.Kafka.Partitions, p.cfg.Kafka.ReplicationFactor = p.cfg.Embedded.Broker.Partitions, 1
	}

	client, err := kafka.New(p.cfg.Kafka)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	p.kafka = client
	log := p.log
	if roles&(roleEngine|rolePublisher) == 0 {
		log = discardLog() // the shipper logs outages itself
	}
	p.lifecycle.startComponent("kafka monitor", func(ctx context.Context) error { return client.Monitor(ctx, log, p.reg) })
	if roles&(roleEngine|rolePublisher) == 0 {
		return nil
	}

	ensureTopics := func(ctx context.Context) error {
		_, err := client.EnsureTopics(ctx)
		return err
	}
	return p.retryStartup(ctx, "kafka", ensureTopics, func(err error) bool {
		return kafka.Classify(err) != kafka.Retriable
	})
}

// connectStore connects to ClickHouse and creates or extends its tables.
func (p *process) connectStore(ctx context.Context) error {
	connect := func(ctx context.Context) error {
		cfg, err := p.storeConfig()
		if err != nil {
			return err
		}
		// The retention times of the section clickhouse also apply to an embedded store.
		cfg.TTLDays, cfg.AlertTTLDays = p.cfg.ClickHouse.TTLDays, p.cfg.ClickHouse.AlertTTLDays

		store, err := clickhouse.Open(ctx, cfg, p.log, p.reg)
		if err != nil {
			return err
		}
		if err := store.Migrate(ctx); err != nil {
			_ = store.Close()
			return err
		}
		p.store = store
		p.lifecycle.addStopHook("store connection", func(context.Context) error { return store.Close() })
		p.lifecycle.startComponent("store monitor", p.monitorStore)
		return nil
	}
	return p.retryStartup(ctx, "clickhouse", connect, func(err error) bool {
		return errors.Is(err, pipeline.ErrRowsRejected) || errors.Is(err, clickhouse.ErrForeignTable) ||
			clickhouse.IsDenied(err)
	})
}

// storeConfig returns the address and the login of the store. For a store that another process embeds it
// reads them from the data folder, and returns an error if no store has run there yet.
func (p *process) storeConfig() (clickhouse.Config, error) {
	switch {
	case p.storeServer != nil:
		return p.storeServer.Config(), nil
	case p.cfg.embeddedStore():
		return embedded.StoreAdmin(p.cfg.Embedded.Store.Dir)
	}
	return p.cfg.ClickHouse, nil
}

// retryStartup calls try until it succeeds: a dependency that is unavailable at the start usually comes up
// later. It logs an error unless it equals the previous one. permanent reports whether an error does not go
// away with time; retryStartup returns such an error.
func (p *process) retryStartup(
	ctx context.Context, dependency string, try func(context.Context) error, permanent func(error) bool,
) error {
	backoff := retry.Backoff{Min: 200 * time.Millisecond, Max: 5 * time.Second}
	logged := ""
	defer p.startBlocker.set(nil)
	for {
		err := try(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			return nil
		}
		if permanent(err) {
			return fmt.Errorf("%s: %w", dependency, err)
		}
		p.startBlocker.set(fmt.Errorf("%s: %w", dependency, err))
		if err.Error() != logged {
			logged = err.Error()
			p.log.Error("dependency unavailable, retrying", "dependency", dependency, "err", err)
		}
		if backoff.Wait(ctx) != nil {
			return ctx.Err()
		}
	}
}

// lockDataDir takes the lock of a role in the data folder and holds it until the process stops. It returns an
// error if another process has the lock: with static assignment both would read the same partitions.
func (p *process) lockDataDir(role string) error {
	lock, err := statedir.NewLock(filepath.Join(p.cfg.DataDir, role+".lock"))
	if err != nil {
		return fmt.Errorf("start the %s: %w", role, err)
	}
	p.lifecycle.addStopHook(role+" lock", func(context.Context) error { return lock.Unlock() })
	return nil
}
