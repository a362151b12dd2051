package ship

import (
	"slices"
	"time"

	"tidegate/pipeline/config"
)

// Config configures how events are batched, buffered and sent.
type Config struct {
	StateDir string `yaml:"-"` // identity, lock, journal and spool; one collector per folder
	Host     string `yaml:"-"` // host.name of every event
	Cluster  string `yaml:"-"` // orchestrator.cluster.name of every event

	// Maximum number of events of a batch.
	BatchEvents int `yaml:"batch_events"`
	// Maximum number of encoded bytes of a batch.
	BatchBytes config.Size `yaml:"batch_bytes"`
	// How long a batch waits for more events after its first.
	Linger time.Duration `yaml:"linger"`
	// Maximum number of unacknowledged produce requests per partition.
	MaxInFlight int `yaml:"max_in_flight"`
	// Memory for events that wait to be sent: half for logs, half for traffic.
	BufferBytes config.Size `yaml:"buffer_bytes"`

	// Disk space for events that cannot be read again, while Kafka is unavailable; 0: no spool.
	SpoolBytes config.Size `yaml:"spool_bytes"`
	// Age at which a batch that waits for Kafka is written to the spool.
	SpoolAfter time.Duration `yaml:"spool_after"`
	// Sync each write of journal and spool to the disk, so that they survive a power cut and not only a
	// killed process. Slower.
	Fsync bool `yaml:"fsync"`

	// How long an unacknowledged batch of an earlier process waits for its log lines to be read again. Time in
	// which Kafka does not accept the batches of the partition does not count.
	ResumeTimeout time.Duration `yaml:"resume_timeout"`
}

// Default returns a configuration that sends an event within 0.2 s and uses 48 MiB of memory and 256 MiB of
// disk.
func Default() Config {
	return Config{
		BatchEvents:   2000,
		BatchBytes:    512 * config.KiB,
		Linger:        150 * time.Millisecond,
		MaxInFlight:   4,
		BufferBytes:   48 * config.MiB,
		SpoolBytes:    256 * config.MiB,
		SpoolAfter:    2 * time.Second,
		ResumeTimeout: time.Minute,
	}
}

// Check returns every problem of c.
func (c Config) Check() []config.Problem {
	return slices.Concat(
		config.Range("batch_events", c.BatchEvents, 1, maxBatchEvents),
		config.Range("batch_bytes", c.BatchBytes, minBatchBytes, maxBatchBytes),
		config.Range("linger", c.Linger, time.Millisecond, time.Minute),
		config.Range("max_in_flight", c.MaxInFlight, 1, window),
		config.Range("buffer_bytes", c.BufferBytes, 4*c.BatchBytes, config.TiB),
		config.RangeOr("spool_bytes", c.SpoolBytes, 0, 2*maxBatchBytes, config.TiB),
		config.Range("spool_after", c.SpoolAfter, 10*time.Millisecond, time.Hour),
		config.Range("resume_timeout", c.ResumeTimeout, 100*time.Millisecond, 24*time.Hour),
	)
}

const (
	// window is the maximum distance between the first unacknowledged sequence and the last produced one. The
	// engine recognises duplicates by the highest sequence of a producer and a bitmap of the 64 below it: a
	// batch that arrives later than that would be dropped as a duplicate.
	window = 64

	maxBatchEvents = 100_000
	minBatchBytes  = 4 << 10
	maxBatchBytes  = 1 << 20 // a Kafka message is at most 1 MiB by default, and that is after compression
)
