// Package engine carries events from Kafka into ClickHouse: it reads the batches of the events topic, drops
// duplicate batches, evaluates the events with the loaded detectors, stores each event exactly once, and
// raises alerts. cmd/tidegate and bench call New and Run.
//
// In: batches of pipeline.Events from the events topic, a bundle of detectors. Out: rows in a Store,
// revisions of alerts in the Store and on the alerts topic, dead letters. An Engine runs a worker for each
// partition that the consumer group assigns to this process. A worker does everything on one goroutine; a
// second one only fetches ahead.
//
// # States of a block
//
// A worker processes one block of messages [start, end) at a time. Each arrow is one step; the names between
// the steps are the failpoints at which tests kill the process.
//
//	gather      form the block: decode, drop duplicates, collect dead letters
//	   ↓        evaluate the events (verdicts are columns of the rows)
//	   ↓        before-intent
//	intent      commit offset start with the metadata "v1 end time shard bundle", and the number of partitions
//	   ↓        over which the signals of the block are distributed
//	   ↓        after-intent
//	insert      insert the rows under the token topic/partition/start-end@time
//	   ↓        after-insert
//	signals     write the matches, the signals of correlation rules, and the watermark, to the signals topic
//	   ↓        after-signals; write the dead letters
//	finished    the next block begins at end; its intent replaces the one of this block
//	   ↓        before-close (only when no message came for the idle time, or at the end)
//	closed      commit offset end without metadata
//
// Durability: after intent the bounds, the time and the bundle of the block are durable, after insert its
// rows, after signals what becomes alerts. The next intent or the closing commit acknowledges the whole block.
//
// # Replay
//
// A process that is killed leaves the committed offset start with an intent, or none. The next owner of the
// partition reads exactly the messages [start, end) again, with the same block time and, if it is still
// loaded, the same bundle, and takes the block through all steps.
//
// Nothing is stored twice. The store drops an insert whose token is in its window of recent tokens. The token
// may have left that window, so the worker also queries which rows exist and inserts only the others.
//
// The duplicate filter is restored from the rows before start. Its state depends only on the messages, and so do the matches and
// signals, so that a fold recognises those of a replay. An intent is committed under the generation of the consumer
// group: a process that lost the partition cannot commit one.
//
// The worker confirms that it owns the partition before it writes: it commits an intent that is older than a
// second again. A log that was replaced (the topic was created anew, or its end was lost) ends the fetcher.
// The worker then starts again, at the beginning of the new log.
//
// A committed offset that was set back, or lost, does not say whether the last stored block is complete. Its
// matches are then written from its rows. Offsets may be those of an earlier log, so the last block is the one
// with the latest block time, and the block times of a partition ascend. Before a worker looks for rows it
// waits for the inserts of earlier owners that the store has not finished. See resume.go.
//
// # Alerts
//
// A worker writes to the signals topic the verdicts, counted by rule, group and second (matches.go), what matches a step of a
// correlation rule (signals.go), and how far it has come. Correlate runs a foldWorker for each partition of that topic (fold.go), which folds the
// signals (package correlate), groups all matches into alerts, and raises these (alerts.go). Its blocks have intents as those of events have, and the
// steps
//
//	intent      commit the offset with the place from which the fold reads again, and the intent
//	alerts      insert the revisions of the touched alerts under the token of the block
//	   ↓        after-alerts-insert
//	publish     write the revisions to the alerts topic
//	   ↓        after-alerts-publish
//	closed      commit the end of the block
//
// fold_state.go has its place in the topic, and fold_seen.go stores and restores what rules of FirstSeen remember.
//
// # Errors of an insert
//
// After an insert that fails, the worker asks the store for the rows. If they are stored, the insert was
// successful: ClickHouse commits the rows of a table before a materialized view on it fails. If the store
// rejects the rows, the worker bisects the block down to the messages at fault, which become dead letters. If
// the store rejects every message, the table is at fault: the worker withdraws the intent, waits, and gathers
// the block again, together with newer messages.
//
// # Memory
//
// The strings of a decoded event alias the value of its record. The events are released when the block is
// finished. Columns and the grouper outlive the events and copy the strings; dead letters hold the record.
//
// A memoryBudget bounds what all workers of the process hold. A fetcher takes the memory for a record before
// it hands the record out, and the worker gives it back when its block is stored. A worker whose fetcher
// waits for memory stores what it has. See memory.go. The signals of a block are kept where the budget has room for
// them, and else found a second time when they are written (evaluate.go).
//
// # Files
//
// worker.go (a partition from assignment to revocation), resume.go (its start), gather.go and block.go
// (forming a block), decode.go, decoded_size.go, memory.go, dedup.go, evaluate.go, intent.go, insert.go,
// insert_token.go and rejection.go, matches.go, alerts.go, store.go and discard_store.go (the store's interface), batch_id.go (the id
// of a batch, from its first bytes), signals.go, fold.go, fold_state.go, fold_seen.go, fold_metrics.go, lag.go, lag_metrics.go and metrics.go, config.go.
package engine

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/config"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// Deps are the dependencies of an engine.
type Deps struct {
	Kafka  *kafka.Client
	Store  Store
	Bundle func() *pipeline.Bundle // called once per block; a nil func or a nil bundle evaluates nothing
	// Failpoint is called at each of Failpoints; tests kill the process there. nil outside tests.
	Failpoint func(name string)
	// Now returns the time by the wall clock; nil: time.Now. Tests set their clock.
	Now func() time.Time

	seenInterval time.Duration // 0: seenInterval; tests set it
}

// The failpoints: those of a block of events, in the order in which it passes them, and AfterAlerts… of a block
// of signals, which passes BeforeIntent and AfterIntent, too.
const (
	BeforeIntent       = "before-intent"
	AfterIntent        = "after-intent"
	AfterInsert        = "after-insert"
	AfterAlertsInsert  = "after-alerts-insert"
	AfterAlertsPublish = "after-alerts-publish"
	AfterSignals       = "after-signals"
	BeforeClose        = "before-close"
)

// Failpoints lists the names of all failpoints.
var Failpoints = []string{BeforeIntent, AfterIntent, AfterInsert, AfterAlertsInsert, AfterAlertsPublish, AfterSignals, BeforeClose}

// An Engine runs the workers of this process.
type Engine struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *engineMetrics

	memory    *memoryBudget
	decoding  chan struct{} // of the fetchers
	inserters inserterPool

	alertPartitions  atomic.Int64 // number of partitions of the alerts topic; set before the workers start
	foldPartitions   atomic.Int64 // number of partitions of the signals topic, as of the start of the last foldWorker
	signalPartitions signalPartitions
	fetchBytes       int // of one fetch, compressed; set by Run before the workers start

	mu          sync.Mutex         // guards the fields below
	nextOffsets map[int]int64      // by assigned partition: the offset behind its last finished block
	bundles     []*pipeline.Bundle // the last keptBundles, newest first
}

// keptBundles is the number of bundles that stay loaded, so that a replayed block is evaluated by the bundle
// that its intent names.
const keptBundles = 4

// Bounds of one fetch, compressed.
const (
	minFetchBytes = 64 << 10
	maxFetchBytes = 1 << 20
)

// memoryPerDecoding is the part of engine.memory for which one record batch may be decompressed at a time. One of the largest
// size takes some 50 MiB meanwhile: the buffer that it is decompressed into, which grows, and the records.
const memoryPerDecoding = 256 << 20

// New returns an engine. It connects to nothing yet.
func New(cfg Config, deps Deps, log *slog.Logger, reg prometheus.Registerer) (*Engine, error) {
	if err := config.Join("engine", cfg.Check()); err != nil {
		return nil, err
	}
	if cfg.Group == "" {
		cfg.Group = deps.Kafka.Config().TopicPrefix + "-engine"
	}
	if deps.Failpoint == nil {
		deps.Failpoint = func(string) {}
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.seenInterval == 0 {
		deps.seenInterval = seenInterval
	}
	memory := int64(cfg.Memory)
	return &Engine{
		cfg: cfg, deps: deps, log: log, metrics: newEngineMetrics(reg), nextOffsets: map[int]int64{},
		memory:    newMemoryBudget(memory, reg),
		decoding:  make(chan struct{}, memory/memoryPerDecoding),
		inserters: inserterPool{newInserter: deps.Store.NewInserter, limit: int(memory / shares * inserterShare)},
	}, nil
}

// Run processes the partitions that this process is assigned until ctx ends. Blocks in progress then have
// stopGrace to finish. Run retries temporary errors; it returns an error only if a retry cannot help, such as
// another process that took the partitions of a static assignment.
func (e *Engine) Run(ctx context.Context) error {
	if err := e.findAlertsTopic(ctx); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	// All partitions may have a response in memory at the same time.
	events := 0
	if err := consumer.Retry(ctx, e.log, "find the events topic", func() (err error) {
		events, err = e.deps.Kafka.Partitions(ctx, e.deps.Kafka.Topic(pipeline.TopicEvents))
		return err
	}); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	e.fetchBytes = fetchBytes(e.cfg.Memory, events)

	cfg := consumer.Config{
		Client: e.deps.Kafka, Topic: e.deps.Kafka.Topic(pipeline.TopicEvents), Group: e.cfg.Group,
		OnAssign: e.metrics.lag.retain,
	}
	return consumer.Run(ctx, cfg, e.log, func(ctx context.Context, p *consumer.Partition) error {
		return newWorker(e, p).processPartition(ctx)
	})
}

// fetchBytes returns the bound of one fetch: the share of one of a number of partitions in the memory for responses.
func fetchBytes(memory config.Size, partitions int) int {
	share := int(memory) / shares * fetchShare / max(1, partitions)
	return min(max(share, minFetchBytes), maxFetchBytes)
}

// findAlertsTopic waits for the alerts topic. The workers distribute alerts over its partitions, so their number comes first.
// It fails only if ctx has ended.
func (e *Engine) findAlertsTopic(ctx context.Context) error {
	return consumer.Retry(ctx, e.log, "find the alerts topic", func() error {
		partitions, err := e.deps.Kafka.Partitions(ctx, e.deps.Kafka.Topic(pipeline.TopicAlerts))
		e.alertPartitions.Store(int64(partitions))
		return err
	})
}

// currentBundle returns the bundle for the next block, and keeps it for replays if it is new.
func (e *Engine) currentBundle() *pipeline.Bundle {
	var bundle *pipeline.Bundle
	if e.deps.Bundle != nil {
		bundle = e.deps.Bundle()
	}
	if bundle == nil {
		bundle = &pipeline.Bundle{Version: "none"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.bundles) == 0 || e.bundles[0] != bundle {
		e.bundles = append([]*pipeline.Bundle{bundle}, e.bundles...)
		e.bundles = e.bundles[:min(len(e.bundles), keptBundles)]
	}
	return bundle
}

// bundleByVersion returns the kept bundle of that version. If no kept bundle has it, bundleByVersion returns
// the newest bundle and false.
func (e *Engine) bundleByVersion(version string) (bundle *pipeline.Bundle, ok bool) {
	newest := e.currentBundle()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, bundle := range e.bundles {
		if bundleVersion(bundle) == version {
			return bundle, true
		}
	}
	return newest, false
}
