// Package logs makes events of the log files of this host: what containers write by Docker's json-file
// driver, and plain text files.
//
// It joins three parts that do not depend on each other:
//
//	discover   which files belong to which log, in which order: Docker's folders, globs
//	   │ a log: id, folder, base name, format
//	   ▼
//	tail       reads the files of each log, whatever rotation does to them, each line once
//	   │ the bytes between two newlines          ▲ a record: text, time, stream, ends
//	   ▼                                         │
//	decode     bytes to records: json-file, text ┘
//
// The input is files; the output is one event of dataset log for each line, on a producer for each file.
// cmd/tidegate runs a Source beside the packet capture. The metadata of containers comes from package
// containers. A discovery joins the discoverers (discovery.go). A lineHandler makes events of the lines of
// one log (event.go): it adds the container and the level, redacts secrets, and ships the event.
//
// A further source of log files is a type beside discover.Docker, a further format one beside
// decode.DockerJSON: docs/ADDING-A-SOURCE.md describes both.
package logs

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/collector/containers"
	"tidegate/collector/logs/tail"
	"tidegate/pipeline"
	"tidegate/pipeline/logging"
)

// Containers is the part of containers.Registry that a Source uses.
type Containers interface {
	Enabled() bool
	ByID(id string) *pipeline.Container
	Status(id string) containers.Status
	Logs() []containers.LogFile
	Subscribe() <-chan struct{}
}

// Source reads the logs of this host. It implements collector.Source.
type Source struct {
	// QuietIfAbsent logs a folder of logs that does not exist at level info: the caller reports it. It is set before
	// Run.
	QuietIfAbsent bool

	cfg       Config
	registry  Containers // nil: containers have ids only
	collector pipeline.ID
	log       *slog.Logger
	metrics   sourceMetrics
	group     *tail.Group
	discovery *discovery

	panicThrottle *logging.Throttle

	lastBuffers atomic.Pointer[lineBuffers] // nil: they are in use
	buffers     sync.Pool                   // of further *lineBuffers
}

var _ collector.Source = (*Source)(nil)

// New returns a Source that reads nothing until Run is called. registry may be nil: then containers have ids
// only.
func New(
	cfg Config, registry Containers, collectorID pipeline.ID, log *slog.Logger, reg prometheus.Registerer,
) *Source {
	source := &Source{cfg: cfg, registry: registry, collector: collectorID, log: log, metrics: newMetrics(reg)}
	source.panicThrottle = logging.NewThrottle(10 * time.Second)
	source.discovery = newDiscovery(source)
	source.group = tail.NewGroup(cfg.tail(), log, reg)
	return source
}

// tail returns the configuration of package tail. With start_at: end it excludes lines older than NotBefore,
// or older than now if NotBefore is not set.
func (c Config) tail() tail.Config {
	cfg := tail.Config{
		LineMax: int(c.MaxLineBytes), PartialTimeout: c.PartialTimeout,
		MaxOpen: c.MaxOpenFiles, Memory: int(c.BufferBytes), DrainTimeout: c.DrainTimeout,
	}
	if c.StartAt == "end" {
		cfg.NotBefore = time.Now().UnixNano()
		if !c.NotBefore.IsZero() {
			cfg.NotBefore = c.NotBefore.UnixNano()
		}
	}
	return cfg
}

// Run reads logs until ctx ends, and returns nil.
func (s *Source) Run(ctx context.Context, ship collector.Shipper) error {
	var changed <-chan struct{}
	if s.registry != nil {
		changed = s.registry.Subscribe()
	}
	s.group.Run(ctx, ship, s.discovery, changed)
	return nil
}
