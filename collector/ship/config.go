package ship

import (
	"fmt"
	"time"
)

// Config is how events are gathered, kept and sent.
type Config struct {
	StateDir string `yaml:"-"` // identity, lock, journal and spool; one collector per folder
	Host     string `yaml:"-"` // host.name of every event
	Cluster  string `yaml:"-"` // orchestrator.cluster.name of every event

	BatchEvents int           `yaml:"batch_events"` // a batch is cut at so many events,
	BatchBytes  int           `yaml:"batch_bytes"`  // at so many encoded bytes,
	Linger      time.Duration `yaml:"linger"`       // or when its first event has waited so long
	InFlight    int           `yaml:"in_flight"`    // produce requests at a time per partition
	Memory      int64         `yaml:"memory"`       // bytes of events that wait, half for logs, half for the wire

	SpoolBytes int64         `yaml:"spool_bytes"` // on disk, for what cannot be read again, while Kafka is away; 0: no spool
	SpoolAfter time.Duration `yaml:"spool_after"` // a batch that has waited so long goes to the spool
	Sync       bool          `yaml:"sync"`        // journal and spool survive a power cut, not only a killed process; slower

	ResumeTimeout time.Duration `yaml:"resume_timeout"` // how long a batch from before a kill waits for a file that does not come back
}

// Default sends within a fifth of a second and spends 64 MiB of memory and 256 MiB of disk.
func Default() Config {
	return Config{
		BatchEvents:   2000,
		BatchBytes:    512 << 10,
		Linger:        150 * time.Millisecond,
		InFlight:      4,
		Memory:        64 << 20,
		SpoolBytes:    256 << 20,
		SpoolAfter:    2 * time.Second,
		ResumeTimeout: time.Minute,
	}
}

// Check reports every problem of c.
func (c Config) Check() []error {
	var errs []error
	between := func(key string, v, low, high any, ok bool) {
		if !ok {
			errs = append(errs, fmt.Errorf("ship.%s: %v is not between %v and %v", key, v, low, high))
		}
	}
	between("batch_events", c.BatchEvents, 1, maxBatchEvents, c.BatchEvents >= 1 && c.BatchEvents <= maxBatchEvents)
	between("batch_bytes", c.BatchBytes, minBatchBytes, maxBatchBytes, c.BatchBytes >= minBatchBytes && c.BatchBytes <= maxBatchBytes)
	between("linger", c.Linger, time.Millisecond, time.Minute, c.Linger >= time.Millisecond && c.Linger <= time.Minute)
	between("in_flight", c.InFlight, 1, window, c.InFlight >= 1 && c.InFlight <= window)
	between("memory", c.Memory, 4*c.BatchBytes, "1 TiB", c.Memory >= 4*int64(c.BatchBytes) && c.Memory <= 1<<40)
	if c.SpoolBytes != 0 {
		between("spool_bytes", c.SpoolBytes, "0, or "+fmt.Sprint(2*maxBatchBytes), "1 TiB", c.SpoolBytes >= 2*maxBatchBytes && c.SpoolBytes <= 1<<40)
	}
	between("spool_after", c.SpoolAfter, 10*time.Millisecond, time.Hour, c.SpoolAfter >= 10*time.Millisecond && c.SpoolAfter <= time.Hour)
	between("resume_timeout", c.ResumeTimeout, 100*time.Millisecond, 24*time.Hour, c.ResumeTimeout >= 100*time.Millisecond && c.ResumeTimeout <= 24*time.Hour)
	return errs
}

const (
	// window is how far the stamps that a reader of Kafka remembers reach back: it drops repeats by the highest sequence that it
	// has seen and a 64-bit map. A stamp is never produced while one that is window or more below it is unacknowledged.
	window = 64

	maxBatchEvents = 100_000
	minBatchBytes  = 4 << 10
	maxBatchBytes  = 1 << 20 // a Kafka message is at most 1 MiB unless it is told otherwise, and that is after compression
)
