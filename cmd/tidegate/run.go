package main

import (
	"context"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tidegate/collector/ship"
	"tidegate/detectors"
	"tidegate/pipeline"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/pipeline/logging"
)

// runCommand returns the command `tidegate run`.
func runCommand() *cobra.Command {
	var flags serviceFlags
	var opt options
	var only []string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "run the whole system on this machine",
		Long: `run starts the collector, Kafka, the engine, ClickHouse and the publisher of alerts in one process tree.

Needs:    nothing. Kafka and ClickHouse are embedded unless the configuration has addresses. As root, or with
          CAP_NET_RAW and CAP_NET_ADMIN, it captures packets; logs and container names need Docker's files and
          API. It prints what is missing and runs without it.
Metrics:  at metrics.listen, 127.0.0.1:9464 by default, with /healthz and /readyz.
Ends:     on SIGINT or SIGTERM, in order, within 10 s, and prints the totals. A second signal ends it at once.`,
		Example: `  tidegate run --demo
  tidegate run --only broker,store --data-dir /srv/tidegate`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			roles, err := parseRoles(only)
			if err != nil {
				return err
			}
			return runRoles(cmd.Context(), &flags, roles, opt)
		},
	}
	opt.interactive = true
	flags.addTo(cmd)
	cmd.Flags().BoolVar(&opt.demo, "demo", false, "also play the bundled scenario: a small shop that is broken into")
	cmd.Flags().BoolVar(&opt.demoAnywhere, "demo-anywhere", false,
		"play the demo also to the Kafka, the ClickHouse and the destinations of alerts that the configuration names")
	cmd.Flags().StringSliceVar(&only, "only", nil, "run only these parts: broker, store, engine, publisher, collector")
	cmd.Flags().DurationVar(&opt.forTime, "for", 0, "stop after this time")
	return cmd
}

// collectCommand returns the command `tidegate collect`.
func collectCommand() *cobra.Command {
	return roleCommand(roleCollector, &cobra.Command{
		Use:   "collect",
		Short: "collect traffic and logs of this host and send them to Kafka",
		Long: `collect is the collector: packets and log lines of this host become events in the topic tidegate.events.

Needs:    Kafka (kafka.brokers; without it the embedded broker of the same data folder). Kafka may be
          unavailable: logs wait in their files, traffic in a spool on disk. CAP_NET_RAW and CAP_NET_ADMIN in the
          host's network namespace for packets, Docker's log files for logs, Docker's API for container names;
          what is missing is logged.
Metrics:  tidegate_capture_*, tidegate_sessions_*, tidegate_protocols_*, tidegate_logs_*,
          tidegate_containers_* and tidegate_collector_* at metrics.listen.
Ends:     on SIGINT or SIGTERM, within 10 s, and prints how many events were read, delivered and dropped.`,
		Example: `  tidegate collect --config /etc/tidegate/tidegate.yaml`,
	})
}

// analyzeCommand returns the command `tidegate analyze`.
func analyzeCommand() *cobra.Command {
	return roleCommand(roleEngine, &cobra.Command{
		Use:   "analyze",
		Short: "evaluate events from Kafka, store them in ClickHouse and raise alerts",
		Long: `analyze is the engine: it reads the topic tidegate.events, evaluates rules, feeds and the classifier, stores
each event in ClickHouse exactly once and writes alerts to the topic tidegate.alerts. Several engines share the
partitions (kafka.assign: group).

Needs:    Kafka and ClickHouse (kafka.brokers, clickhouse.addr; without them the embedded ones of the same data
          folder). It waits for both.
Metrics:  tidegate_engine_*, tidegate_clickhouse_* and tidegate_detectors_* at metrics.listen.
Ends:     on SIGINT or SIGTERM, after the block at hand, within 10 s, and prints the totals.`,
		Example: `  tidegate analyze --config /etc/tidegate/tidegate.yaml`,
	})
}

// publishCommand returns the command `tidegate publish`.
func publishCommand() *cobra.Command {
	return roleCommand(rolePublisher, &cobra.Command{
		Use:   "publish",
		Short: "deliver alerts to Alertmanager and webhooks",
		Long: `publish is the publisher: it reads the topic tidegate.alerts and delivers each alert to every destination, at
least once. A destination that is unavailable delays only its own alerts.

Needs:    Kafka, and at least one destination (alerts.alertmanager, alerts.webhooks).
Metrics:  tidegate_alerts_* at metrics.listen.
Ends:     on SIGINT or SIGTERM, within 10 s. Alerts that were not delivered are delivered after the next start.`,
		Example: `  tidegate publish --config /etc/tidegate/tidegate.yaml`,
	})
}

// roleCommand adds arguments, flags and the function to the command of a process with these roles.
func roleCommand(roles role, cmd *cobra.Command) *cobra.Command {
	var flags serviceFlags
	cmd.Args = noArguments
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runRoles(cmd.Context(), &flags, roleSet{all: roles}, options{})
	}
	flags.addTo(cmd)
	return cmd
}

// options are the flags of `run` that the other commands do not have.
type options struct {
	demo         bool          // play the bundled scenario
	demoAnywhere bool          // also to servers and destinations that the configuration names
	interactive  bool          // print for a person instead of logging
	forTime      time.Duration // stop after this time; 0: on a signal
}

// A process holds the configuration and the components of this process. A component that its roles do not
// include is nil.
type process struct {
	cfg       *Config
	loaded    Config // as it was read; components change cfg
	flags     *serviceFlags
	roles     roleSet
	demo      bool // the demo is played
	log       *slog.Logger
	reg       *prometheus.Registry
	terminal  *terminal // nil: logs only
	lifecycle *lifecycle

	kafka       *kafka.Client
	broker      *embedded.Broker
	storeServer *embedded.StoreServer
	store       *clickhouse.Store
	identity    pipeline.ID // of the collector
	shipper     *ship.Shipper
	engine      *engine.Engine
	detectors   *detectors.Loader
	stored      storedBundle
	memoryLimit int64 // soft limit of the Go runtime and of the packet rings together; 0: not set

	started        atomic.Bool   // every component runs
	startBlocker   blocker       // the dependency for which the start waits
	storeBlocker   blocker       // why the store does not answer
	welcomePrinted chan struct{} // closed after the welcome, or when the start has failed
	captures       bool          // packets are captured
	storeless      bool          // there is no ClickHouse on this machine: events are evaluated and discarded
	missing        []string      // lines of the welcome that name what this process runs without
}

// runRoles reads the configuration and runs a process with these roles until ctx ends or a component fails.
func runRoles(ctx context.Context, flags *serviceFlags, set roleSet, opt options) error {
	cfg, err := flags.loadConfig(set)
	if err != nil {
		return err
	}
	roles := cfg.rolesToRun(set.all)

	hup, stopHangups := hangups()
	defer stopHangups()
	proc := &process{
		cfg: &cfg, loaded: cfg, flags: flags, roles: set, demo: opt.demo, reg: newRegistry(),
		welcomePrinted: make(chan struct{}),
	}
	level := flags.logLevel
	if opt.interactive {
		proc.terminal = newTerminal(os.Stdout)
		if level == "" {
			level = "warn"
		}
	}
	if proc.log, err = newLog(level, os.Stderr, proc.terminal); err != nil {
		return err
	}
	stdlog.SetFlags(0)
	stdlog.SetOutput(logging.LibraryWriter(proc.log))
	proc.lifecycle = newLifecycle(proc.log)

	if opt.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.forTime)
		defer cancel()
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	terminal := newControllingTerminal()
	endWatch := proc.watchHangups(hup, terminal, stop)
	err = proc.startRoles(ctx, roles, opt)
	endWatch()
	close(proc.welcomePrinted)
	if err == nil {
		err = proc.showStatusUntilDone(ctx, hup, terminal)
	} else if ctx.Err() != nil {
		err = nil // stopped during the start
	}

	// Components stop in the reverse order of their start, also after an error.
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err = errors.Join(err, proc.lifecycle.stopAll(stopping))
	proc.printTotals()
	return err
}

// discardLog is for commands whose output is their result.
func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// newLog returns a logger that writes to out. If out is the terminal that shows the status line, its records
// are printed above that line. term is nil in a process that shows none.
func newLog(level string, out *os.File, term *terminal) (*slog.Logger, error) {
	var minimum slog.Level
	if level != "" {
		if err := minimum.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("--log-level %s: not debug, info, warn or error", level)
		}
	}
	opts := &slog.HandlerOptions{Level: minimum}
	if term != nil && term.interactive && isTerminal(out) {
		return slog.New(slog.NewTextHandler(term, opts)), nil
	}
	return slog.New(slog.NewTextHandler(out, opts)), nil
}

// startRoles starts the components of the roles, each after those that it needs.
func (p *process) startRoles(ctx context.Context, roles role, opt options) error {
	// Whatever does not depend on a server is checked before any server starts.
	if err := p.prepareStart(roles, opt); err != nil {
		return err
	}

	if err := p.startServers(ctx, roles); err != nil {
		return err
	}
	if roles&(roleEngine|rolePublisher|roleCollector) != 0 {
		if err := p.connectKafka(ctx, roles); err != nil {
			return err
		}
	}
	if err := p.startPipeline(ctx, roles); err != nil {
		return err
	}

	p.started.Store(true)
	p.printWelcome(roles)
	if opt.demo && p.shipper != nil {
		p.startDemo()
	}
	return nil
}

// prepareStart creates the data folder, adds the feed of the demo, checks the destinations of alerts and
// loads the detectors.
func (p *process) prepareStart(roles role, opt options) error {
	if opt.demo && !opt.demoAnywhere {
		if err := p.cfg.checkDemo(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("create the data folder: %w", err)
	}
	if opt.demo {
		if err := p.addDemoFeed(); err != nil {
			return err
		}
	}
	if roles == rolePublisher && p.terminal == nil {
		if err := p.cfg.checkDestinations(); err != nil {
			return err
		}
	}
	p.limitMemory(roles)
	if roles&roleEngine != 0 {
		return p.loadDetectors()
	}
	return nil
}

const (
	// otherMemory is the memory of the embedded broker and the publisher in a process with other parts.
	otherMemory = 256 << 20
	// codeMemory is the part of collector.memory and engine.memory that the pages of the program take, which are not the
	// runtime's.
	codeMemory = 28 << 20
	// lateBuffers is the part of engine.memory for what is allocated while the garbage collector runs: two buffers of the
	// largest messages.
	lateBuffers = 32 << 20
)

// limitMemory sets the soft limit of the Go runtime from engine.memory and collector.memory, so that the garbage
// collector runs more often before a process takes more. The environment variable GOMEMLIMIT has precedence.
func (p *process) limitMemory(roles role) {
	if roles&(roleEngine|roleCollector) == 0 || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(-codeMemory)
	if roles&roleEngine != 0 {
		limit += int64(p.cfg.Engine.Memory) - lateBuffers
	}
	if roles&roleCollector != 0 {
		limit += int64(p.cfg.Collector.Memory)
	}
	if roles&^(roleEngine|roleCollector) != 0 {
		limit += otherMemory
	}
	p.memoryLimit = limit
	p.leaveForRings(0)
}

// leaveForRings lowers the soft limit by the memory of the packet rings, which are the kernel's. The runtime may exceed what
// it aims at by a tenth while a collection runs.
func (p *process) leaveForRings(bytes int64) {
	if p.memoryLimit > 0 {
		debug.SetMemoryLimit((p.memoryLimit - bytes) / 11 * 10)
	}
}

// startPipeline starts publisher, engine and collector. The publisher starts first and so stops last: it
// still delivers the last alerts of the engine.
func (p *process) startPipeline(ctx context.Context, roles role) error {
	if roles&rolePublisher != 0 {
		if err := p.startPublisher(); err != nil {
			return err
		}
	}
	if roles&roleEngine != 0 {
		if err := p.startEngine(ctx); err != nil {
			return err
		}
	}
	if roles&roleCollector != 0 {
		return p.startCollector(ctx)
	}
	return nil
}

// loadDetectors loads rules, feeds and the classifier, rules and feeds from the stored bundle if there is one.
func (p *process) loadDetectors() error {
	cfg := detectorConfig(p.cfg)
	cfg.OnReload = func(summary string) { p.printLine("%s", summary) }
	var err error
	if cfg.Replacement, err = p.loadStoredBundle(); err != nil {
		return err
	}
	if p.detectors, err = detectors.NewLoader(cfg, p.log, p.reg); err != nil {
		return err
	}
	if p.stored.store != nil {
		p.reportStoredBundle(cfg.Replacement)
	}
	return nil
}

// startServers starts the embedded broker, the metrics and the embedded store. The broker comes first: if a
// second process uses the data folder, the error of the broker names the folder, and the error of the metrics
// would name only a port.
func (p *process) startServers(ctx context.Context, roles role) error {
	if roles&roleBroker != 0 {
		if err := p.startBroker(ctx); err != nil {
			return err
		}
	}
	if p.cfg.Metrics.Listen != "" {
		serve, err := serveMetrics(p.cfg.Metrics.Listen, p.reg, p.checkReady)
		if err != nil {
			return err
		}
		p.lifecycle.startComponent("metrics", serve)
	}
	if roles&roleStore == 0 {
		return nil
	}

	// Without the library of the store the process runs on, unless it serves the store to other processes.
	err := p.startStore(ctx)
	servesOthers := roles&^(roleStore|roleBroker) == 0
	if errors.Is(err, embedded.ErrMissing) && !servesOthers {
		p.storeless = true
		p.missing = append(p.missing,
			"the store: "+err.Error()+"; events are evaluated and alerts raised, but nothing is stored")
		return nil
	}
	return err
}

// maxReloadWait bounds how long a stop waits for a reload, which reads files.
const maxReloadWait = time.Second

// showStatusUntilDone redraws the status line every second until ctx ends, a component fails or the terminal is
// closed. Any other SIGHUP reloads the configuration.
func (p *process) showStatusUntilDone(ctx context.Context, hup <-chan os.Signal, terminal controllingTerminal) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	previous := &statusSample{}
	reloading, reloaded := false, make(chan struct{}, 1)
	reload := func() {
		p.reload()
		reloaded <- struct{}{}
	}
	for again := false; ; {
		select {
		case <-ctx.Done():
			if reloading {
				select {
				case <-reloaded:
				case <-time.After(maxReloadWait):
				}
			}
			if p.terminal != nil {
				p.terminal.endStatus()
				p.terminal.printLine("stopping …")
			}
			return nil
		case err := <-p.lifecycle.failed:
			return err
		case <-hup:
			if terminal.isClosed() {
				p.log.Warn("terminal closed, stopping")
				return nil
			}
			// A reload may take long. Another request meanwhile is met by one more reload.
			if reloading {
				again = true
				continue
			}
			reloading = true
			go reload()
		case <-reloaded:
			if reloading = again; again {
				again = false
				go reload()
			}
		case <-ticker.C:
			if p.terminal != nil && p.engine != nil {
				p.terminal.showStatus(p.statusLine(ctx, previous))
			}
		}
	}
}
