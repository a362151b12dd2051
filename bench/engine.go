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
}

func (c engineCase) name() string {
	if c.rules < 0 {
		return "Engine/store=" + c.store + "/rules=none"
	}
	return fmt.Sprintf("Engine/store=%s/rules=shipped+%d", c.store, c.rules)
}

// engineCases are the cases. The store "none" builds no columns, "columns" builds and discards them,
// "libchdb" is ClickHouse in a process of its own.
var engineCases = []engineCase{
	{-1, "none"}, {-1, "columns"}, {10, "columns"}, {100, "columns"}, {1000, "columns"}, {10000, "columns"}, {10, "libchdb"}, {1000, "libchdb"},
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
	n := o.amountOr(400) * 1000
	if err := produceEvents(ctx, client, n); err != nil {
		return err
	}
	stores := &engineStores{dir: filepath.Join(broker.dir, "store")}
	defer stores.close()
	for _, engineCase := range engineCases {
		if !o.selected(engineCase.name() + "-") { // the hyphen ends the name in what is printed
			continue
		}
		if err := o.engineCase(ctx, client, stores, engineCase, n); err != nil {
			return fmt.Errorf("%s: %w", engineCase.name(), err)
		}
	}
	return nil
}

// produceEvents writes n events to the events topic.
func produceEvents(ctx context.Context, client *kafka.Client, n int) error {
	values, err := encodeBatches(mixedEvents(n), 1000)
	if err != nil {
		return err
	}
	for p, list := range values {
		for _, v := range list {
			if _, err := client.Produce(ctx, client.Topic(pipeline.TopicEvents), p, kafkago.Record{Time: time.Now(), Value: kafkago.NewBytes(v)}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o *options) engineCase(ctx context.Context, client *kafka.Client, stores *engineStores, c engineCase, n int) error {
	var by *pipeline.Bundle
	if c.rules >= 0 {
		var err error
		if by, err = newBundle(c.rules); err != nil {
			return err
		}
	}
	for run := range o.runs {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		store, done, err := stores.open(ctx, c.store)
		if err != nil {
			return err
		}
		usage, ledger, err := o.runEngine(ctx, client, store, by, fmt.Sprintf("%s-%d", c.name(), run), n)
		if err = errors.Join(err, done()); err != nil {
			return err
		}
		report(o.out, c.name(), "events", n, usage, figure{float64(ledger.Verdicts) / float64(n), "verdicts/op"})
	}
	return nil
}

// runEngine runs an engine in a consumer group of its own until n rows are stored. It returns the cost.
func (o *options) runEngine(ctx context.Context, client *kafka.Client, store engine.Store, by *pipeline.Bundle, group string, n int) (u usage, ledger engine.Ledger, err error) {
	cfg := engine.Default()
	cfg.Group = group
	deps := engine.Deps{Kafka: client, Store: store, Bundle: func() *pipeline.Bundle { return by }}
	e, err := engine.New(cfg, deps, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return u, ledger, err
	}
	meter, err := o.startMeter()
	if err != nil {
		return u, ledger, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for e.Ledger().Rows < uint64(n) && ctx.Err() == nil {
		select {
		case err := <-done:
			cancel()
			return u, ledger, errors.Join(errors.New("the engine ended by itself"), err)
		case <-time.After(time.Millisecond):
		}
	}
	u = meter.since()
	cancel()
	return u, e.Ledger(), <-done
}

// engineStores opens the stores of engines. ClickHouse starts when it is first needed.
type engineStores struct {
	dir    string
	server *embedded.StoreServer
	opened int
}

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
	s.opened++
	cfg := s.server.Config()
	cfg.Database = fmt.Sprintf("bench_%d", s.opened) // each run stores the same events, into tables of its own
	store, err := clickhouse.Open(ctx, cfg, log, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, nil, errors.Join(err, store.Close())
	}
	return store, func() error {
		return errors.Join(clickhouse.Query(ctx, cfg, "DROP DATABASE `"+cfg.Database+"`", "Null", io.Discard), store.Close())
	}, nil
}

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

type columnInserter struct{ *clickhouse.ColumnBlock }

// Insert implements pipeline.EventInserter.
func (columnInserter) Insert(context.Context, string) error { return nil }
