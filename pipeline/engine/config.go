package engine

import (
	"slices"
	"time"

	"tidegate/pipeline/alerts"
	"tidegate/pipeline/config"
)

// Config bounds the block of a worker and names the consumer group.
type Config struct {
	// Kafka consumer group; empty: the value of `kafka.topic_prefix` followed by -engine.
	Group string `yaml:"group"`
	// Name of the ClickHouse shard into which this engine inserts. The intent of a block records it.
	Shard string `yaml:"shard"`
	// Memory of the process, for any number of partitions. Blocks become smaller as partitions share it.
	Memory config.Size `yaml:"memory"`
	// Maximum number of events of a block.
	BlockRows int `yaml:"block_rows"`
	// Maximum size of a block: the sum of its messages, decompressed.
	BlockBytes config.Size `yaml:"block_bytes"`
	// How long a block waits for more events after its first one.
	Linger time.Duration `yaml:"linger"`
	// Bytes per partition that are fetched ahead while a block is processed.
	PrefetchBytes config.Size `yaml:"prefetch_bytes"`
	// Time without messages after which the offset of the last block is committed.
	CommitIdleAfter time.Duration `yaml:"commit_idle_after"`
	// Age of an insert from which a retry first queries which of its rows are stored.
	VerifyAfter time.Duration `yaml:"verify_after"`
	// How far back batch ids are read from ClickHouse when a partition is assigned, to recognise duplicates.
	DedupLookback time.Duration `yaml:"dedup_lookback"`
	// Maximum number of producers per partition whose batch ids are kept in memory. Each start of a collector
	// is a new producer.
	MaxProducers int `yaml:"max_producers"`

	// How verdicts are grouped into alerts.
	Grouping alerts.GrouperConfig `yaml:"grouping"`
}

// Default returns a configuration that runs well on two cores.
func Default() Config {
	return Config{
		Shard:           "0",
		Memory:          config.GiB,
		BlockRows:       100_000,
		BlockBytes:      64 * config.MiB,
		Linger:          300 * time.Millisecond,
		PrefetchBytes:   32 * config.MiB,
		CommitIdleAfter: time.Second,
		VerifyAfter:     time.Minute,
		DedupLookback:   48 * time.Hour,
		MaxProducers:    65536,
		Grouping:        alerts.DefaultGrouper(),
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Require(isIntentWord(c.Shard), "shard", "%q is not 1 to 64 characters without a space", c.Shard),
		config.Range("memory", c.Memory, 256*config.MiB, 1024*config.GiB),
		config.Range("block_rows", c.BlockRows, 1, 1_000_000),
		config.Range("block_bytes", c.BlockBytes, config.MiB, config.GiB),
		config.Range("linger", c.Linger, time.Millisecond, time.Minute),
		config.Range("prefetch_bytes", c.PrefetchBytes, 0, config.GiB),
		config.Range("commit_idle_after", c.CommitIdleAfter, 10*time.Millisecond, time.Hour),
		config.Range("verify_after", c.VerifyAfter, time.Millisecond, time.Hour),
		config.Range("dedup_lookback", c.DedupLookback, time.Minute, 10*365*24*time.Hour),
		config.AtLeast("max_producers", c.MaxProducers, 1),
		config.Under("grouping", c.Grouping.Check()),
	)
}
