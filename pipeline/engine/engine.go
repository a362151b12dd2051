// Package engine is the worker's loop: it takes the batches of the events topic, has their events judged, and sees to it that each
// is in the store exactly once and that its alerts are said, whatever is killed in between.
//
// A worker owns one partition and does everything on one goroutine (a second only fetches ahead):
//
//	fetch [S,E) ─ decode ─ drop repeats by stamp ─ Judge ─ append to columns
//	  ─ intent: OffsetCommit(S, "v1 E, block time, shard, bundle") ─ INSERT with token topic/partition/S-E@time
//	  ─ fold ─ INSERT of alerts ─ alerts topic ─ next
//
// What is durable when: after the intent the block's borders, its time and who judges it; after the insert its rows; the next
// intent, or the closing OffsetCommit(E, "") after a second of quiet, acknowledges it. A crash anywhere repeats the block with the
// same borders, time and token: the store knows the rows by the token or, asked by the worker, by their positions; the fold stands
// where its alerts say that it stood, so they come out under the same ids and revisions.
//
// Who owns which bytes: a record's value belongs to its message; the strings of the events decoded from it alias it, and the events
// are released when the block has been inserted and folded. Nothing of an event outlives that (columns and fold copy).
//
// The files: worker.go (a partition's life), block.go (gather, decode, judge), insert.go (intent, insert, bisect), publish.go (alerts
// out), stamps.go (repeats), intent.go, store.go (what is asked of the store), metrics.go. cmd/tidegate calls New and Run.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/consumer"
	"tidegate/pipeline/kafka"
)

// Config bounds a worker's block and says under which names it works.
type Config struct {
	Group      string               `yaml:"group"`       // consumer group; "": <prefix>-engine
	Shard      string               `yaml:"shard"`       // where the blocks go: the name of the store's shard, as it stands in the intent
	BlockRows  int                  `yaml:"block_rows"`  // events in a block, at most
	BlockBytes int64                `yaml:"block_bytes"` // of decoded messages in a block, at most
	Linger     time.Duration        `yaml:"linger"`      // how long a block waits to fill
	Ahead      int64                `yaml:"ahead"`       // bytes that are fetched while a block is inserted, per partition
	Idle       time.Duration        `yaml:"idle"`        // quiet after which the intent is closed
	Ask        time.Duration        `yaml:"ask"`         // age at which an insert is no longer repeated before the store was asked
	Remember   time.Duration        `yaml:"remember"`    // how far back the stamps of batches are read from the store at the start
	Lives      int                  `yaml:"lives"`       // collectors' lives whose stamps are remembered, per partition
	Alerts     alerts.GrouperConfig `yaml:"alerts"`
}

// Default is what runs well on two cores.
func Default() Config {
	return Config{
		Shard: "0", BlockRows: 100_000, BlockBytes: 64 << 20, Linger: 300 * time.Millisecond, Ahead: 32 << 20,
		Idle: time.Second, Ask: time.Minute, Remember: 48 * time.Hour, Lives: 65536, Alerts: alerts.DefaultGrouper(),
	}
}

// Check names every key that cannot be right.
func (c Config) Check() []error {
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("engine.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if !isVersionWord(c.Shard) {
		bad("shard", "%q: 1 to 64 letters without a space are meant", c.Shard)
	}
	if c.BlockRows < 1 || c.BlockRows > 1_000_000 {
		bad("block_rows", "%d: 1 to 1000000 is meant", c.BlockRows)
	}
	if c.BlockBytes < 1<<20 || c.BlockBytes > 1<<30 {
		bad("block_bytes", "%d: 1 MiB to 1 GiB is meant", c.BlockBytes)
	}
	if c.Ahead < 0 || c.Ahead > 1<<30 {
		bad("ahead", "%d: 0 to 1 GiB is meant", c.Ahead)
	}
	for _, d := range []struct {
		key       string
		v         time.Duration
		low, high time.Duration
	}{
		{"linger", c.Linger, time.Millisecond, time.Minute},
		{"idle", c.Idle, 10 * time.Millisecond, time.Hour},
		{"ask", c.Ask, time.Millisecond, time.Hour},
		{"remember", c.Remember, time.Minute, 10 * 365 * 24 * time.Hour},
	} {
		if d.v < d.low || d.v > d.high {
			bad(d.key, "%v: %v to %v is meant", d.v, d.low, d.high)
		}
	}
	if c.Lives < 1 {
		bad("lives", "at least 1 is needed")
	}
	return append(errs, c.Alerts.Check()...)
}

// Deps are the parts that the engine works with.
type Deps struct {
	Kafka     *kafka.Client
	Store     Store
	Bundle    func() *pipeline.Bundle // loaded once a block; nil, or a nil bundle, judges nothing
	Failpoint func(name string)       // called at the seams of a block, for tests that kill the process there; nil is usual
}

// The seams of a block, in their order. At each the process may die.
const (
	BeforeIntent       = "before-intent"
	AfterIntent        = "after-intent"
	AfterInsert        = "after-insert"
	AfterAlertsInsert  = "after-alerts-insert"
	AfterAlertsPublish = "after-alerts-publish"
	BeforeClose        = "before-close"
)

// Failpoints lists them.
var Failpoints = []string{BeforeIntent, AfterIntent, AfterInsert, AfterAlertsInsert, AfterAlertsPublish, BeforeClose}

// An Engine runs the workers of this process.
type Engine struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics

	alertPartitions int
	positions       sync.Map // partition, int32: the offset behind the last finished block, int64

	mu          sync.Mutex
	nextOffsets map[int]int64      // by partition that is ours: the offset behind the last finished block
	bundles     []*pipeline.Bundle // the last few, newest first: a block that is repeated is judged by the one that its intent names
}

// keptBundles is how many bundles are kept for that.
const keptBundles = 4

// New makes an engine. It speaks to nobody yet.
func New(cfg Config, deps Deps, log *slog.Logger, reg prometheus.Registerer) (*Engine, error) {
	if errs := cfg.Check(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if cfg.Group == "" {
		cfg.Group = deps.Kafka.Config().Topic + "-engine"
	}
	if deps.Failpoint == nil {
		deps.Failpoint = func(string) {}
	}
	return &Engine{cfg: cfg, deps: deps, log: log, metrics: newMetrics(reg), nextOffsets: map[int]int64{}}, nil
}

// Run works until ctx ends. Blocks that are under way are given a few seconds to be finished and acknowledged. It returns an error
// only for what will not pass: in static assignment, another process that took the partitions.
func (e *Engine) Run(ctx context.Context) error {
	if err := consumer.Retry(ctx, e.log, "find the alerts topic", func() (err error) {
		e.alertPartitions, err = e.deps.Kafka.Partitions(ctx, e.deps.Kafka.Topic(pipeline.TopicAlerts))
		return err
	}); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	cfg := consumer.Config{Client: e.deps.Kafka, Topic: e.deps.Kafka.Topic(pipeline.TopicEvents), Group: e.cfg.Group}
	return consumer.Run(ctx, cfg, e.log, func(ctx context.Context, p *consumer.Partition) error {
		return newWorker(e, p).run(ctx)
	})
}

// currentBundle loads the bundle for the next block.
func (e *Engine) currentBundle() *pipeline.Bundle {
	var b *pipeline.Bundle
	if e.deps.Bundle != nil {
		b = e.deps.Bundle()
	}
	if b == nil {
		b = &pipeline.Bundle{Version: "none"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.bundles) == 0 || e.bundles[0] != b {
		e.bundles = append([]*pipeline.Bundle{b}, e.bundles...)
		e.bundles = e.bundles[:min(len(e.bundles), keptBundles)]
	}
	return b
}

// bundleByVersion finds the bundle that judged a block before; ok is false where it is no longer held and the newest stands in.
func (e *Engine) bundleByVersion(version string) (b *pipeline.Bundle, ok bool) {
	newest := e.currentBundle()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range e.bundles {
		if bundleVersion(b) == version {
			return b, true
		}
	}
	return newest, false
}
