package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
)

// An engineCase is a set of detectors and a store.
type engineCase struct {
	rules int // generated rules beside the shipped ones, a feed and the classifier; -1: no detectors
	store string

	stateless bool // of the shipped rules only those over one event
}

// name returns the name of the case in the printed line.
func (c engineCase) name() string {
	if c.rules < 0 {
		return "Engine/store=" + c.store + "/rules=none"
	}
	shipped := "shipped"
	if c.stateless {
		shipped = "stateless"
	}
	return fmt.Sprintf("Engine/store=%s/rules=%s+%d", c.store, shipped, c.rules)
}

// engineCases lists the cases. The store "none" builds no columns, "columns" builds and discards them,
// "libchdb" is ClickHouse in a child process.
var engineCases = []engineCase{
	{rules: -1, store: "none"},
	{rules: -1, store: "columns"},
	{rules: 10, store: "columns"},
	{rules: 100, store: "columns"},
	{rules: 1000, store: "columns"},
	{rules: 10000, store: "columns"},
	{rules: 100, store: "columns", stateless: true},
	{rules: 1000, store: "columns", stateless: true},
	{rules: 10, store: "libchdb"},
	{rules: 1000, store: "libchdb"},
}

// engine measures the path from Kafka to the store with two partitions and a worker for each.
func (o *options) engine(ctx context.Context) error {
	broker, err := startBroker()
	if err != nil {
		return err
	}
	defer func() { _ = broker.close() }()
	client, err := broker.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	events := o.amountOr(400) * 1000
	if err := produceEvents(ctx, client, events); err != nil {
		return err
	}

	stores := &engineStores{dir: filepath.Join(broker.dir, "store")}
	defer stores.close()
	for _, engineCase := range engineCases {
		if !o.selected(engineCase.name() + "-") { // a hyphen follows the name in the printed line
			continue
		}
		if err := o.engineCase(ctx, client, stores, engineCase, events); err != nil {
			return fmt.Errorf("%s: %w", engineCase.name(), err)
		}
	}
	return nil
}

// produceEvents writes count events to the events topic, in batches of 1,000.
func produceEvents(ctx context.Context, client *kafka.Client, count int) error {
	encoded, err := encodeBatches(mixedEvents(count), 1000)
	if err != nil {
		return err
	}
	return produceBatches(ctx, client, encoded)
}

// produceBatches writes batches of each partition to the events topic.
func produceBatches(ctx context.Context, client *kafka.Client, encoded [partitions][][]byte) error {
	topic := client.Topic(pipeline.TopicEvents)
	for partition, batches := range encoded {
		for _, batch := range batches {
			record := kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(batch)}
			if _, err := client.Produce(ctx, topic, partition, record); err != nil {
				return err
			}
		}
	}
	return nil
}

// engineCase measures one case and prints a line for each run. The topic holds the given number of events.
func (o *options) engineCase(
	ctx context.Context, client *kafka.Client, stores *engineStores, c engineCase, events int,
) error {
	var detectors *pipeline.Bundle // nil: none
	if c.rules >= 0 {
		var err error
		if detectors, err = newBundle(c.rules, c.stateless); err != nil {
			return err
		}
	}

	for run := range o.runs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		store, closeStore, err := stores.open(ctx, c.store)
		if err != nil {
			return err
		}

		// A consumer group of its own makes each run read the topic from its start.
		cfg := engine.Default()
		cfg.Group = fmt.Sprintf("%s-%d", c.name(), run)
		deps := engine.Deps{Kafka: client, Store: store, Bundle: func() *pipeline.Bundle { return detectors }}
		cost, ledger, err := o.runEngine(ctx, cfg, deps, events)
		if err = errors.Join(err, closeStore()); err != nil {
			return err
		}
		verdicts := float64(ledger.Verdicts) / float64(events)
		report(o.out, c.name(), "events", events, cost, figure{verdicts, "verdicts/op"})
	}
	return nil
}

// runEngine runs an engine until it has stored the given number of rows. It returns the cost and the ledger
// of the engine.
func (o *options) runEngine(
	ctx context.Context, cfg engine.Config, deps engine.Deps, rows int,
) (cost usage, ledger engine.Ledger, err error) {
	return o.runEngineUntil(ctx, cfg, deps, func(e *engine.Engine) bool { return e.Ledger().Rows >= uint64(rows) })
}

// runEngineUntil runs an engine until isDone.
func (o *options) runEngineUntil(
	ctx context.Context, cfg engine.Config, deps engine.Deps, isDone func(*engine.Engine) bool,
) (cost usage, ledger engine.Ledger, err error) {
	measured, err := engine.New(cfg, deps, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return cost, ledger, err
	}
	meter, err := o.startMeter()
	if err != nil {
		return cost, ledger, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done, folded := make(chan error, 1), make(chan error, 1)
	go func() { folded <- measured.Correlate(ctx) }()
	go func() { done <- errors.Join(measured.Run(ctx), <-folded) }()

	// The engine does not end by itself. It is cancelled once everything is done.
	for !isDone(measured) && ctx.Err() == nil {
		select {
		case err := <-done:
			cancel()
			return cost, ledger, errors.Join(errors.New("the engine ended by itself"), err)
		case <-time.After(time.Millisecond):
		}
	}
	cost = meter.since()
	cancel()
	return cost, measured.Ledger(), <-done
}

// engineStores opens the stores of engines. ClickHouse starts when it is first needed.
type engineStores struct {
	dir    string                // folder of ClickHouse
	server *embedded.StoreServer // nil until open has started it
	opened int                   // databases that open has created
}

// open returns a store of the given kind and the function that closes it.
func (s *engineStores) open(ctx context.Context, kind string) (engine.Store, func() error, error) {
	switch kind {
	case "none":
		return engine.DiscardStore{}, func() error { return nil }, nil
	case "columns":
		return columnStore{}, func() error { return nil }, nil
	}

	log := slog.New(slog.DiscardHandler)
	if s.server == nil {
		cfg := embedded.DefaultStore()
		cfg.Dir, cfg.HTTPPort = s.dir, 0
		var err error
		if s.server, err = embedded.StartStore(ctx, cfg, log, nil); err != nil {
			return nil, nil, err
		}
	}

	// Each run stores the same events, into a database of its own.
	s.opened++
	cfg := s.server.Config()
	cfg.Database = fmt.Sprintf("bench_%d", s.opened)
	store, err := clickhouse.Open(ctx, cfg, log, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, func() error {
		drop := "DROP DATABASE `" + cfg.Database + "`"
		return errors.Join(clickhouse.Query(ctx, cfg, drop, "Null", io.Discard), store.Close())
	}, nil
}

// close stops ClickHouse if it runs.
func (s *engineStores) close() {
	if s.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.server.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: stop clickhouse:", err)
	}
}

// columnStore builds the columns of ClickHouse and discards them.
type columnStore struct{ engine.DiscardStore }

// NewInserter implements engine.Store.
func (columnStore) NewInserter() pipeline.EventInserter {
	return columnInserter{clickhouse.NewColumnBlock()}
}

// columnInserter builds the columns of one block at a time.
type columnInserter struct{ *clickhouse.ColumnBlock }

// Insert implements pipeline.EventInserter. It stores nothing.
func (columnInserter) Insert(context.Context, string) error { return nil }
