package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
)

// A role is a part of the system that a process can be. `run` is all of them.
type role uint8

const (
	roleBroker role = 1 << iota
	roleStore
	roleEngine
	roleAlerts
	roleCollector
)

var roleNames = map[string]role{"broker": roleBroker, "store": roleStore, "engine": roleEngine, "alerts": roleAlerts, "collector": roleCollector}

const roleAll = roleBroker | roleStore | roleEngine | roleAlerts | roleCollector

func parseRoles(list []string) (role, error) {
	if len(list) == 0 {
		return roleAll, nil
	}
	var r role
	for _, name := range list {
		one, ok := roleNames[name]
		if !ok {
			return 0, fmt.Errorf("--only %s: not one of broker, store, engine, alerts, collector", name)
		}
		r |= one
	}
	return r, nil
}

func runCommand(common *commonFlags) *cobra.Command {
	var demo bool
	var only []string
	var forTime time.Duration
	cmd := &cobra.Command{
		Use:   "run",
		Short: "all of it on this machine: capture, logs, Kafka, engine, ClickHouse, alerts",
		Long: `run is the whole system in one process tree. Kafka and ClickHouse are embedded unless the configuration gives
addresses; packets and logs of the host are read where this user may. What is left out is said.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			roles, err := parseRoles(only)
			if err != nil {
				return err
			}
			return runRoles(cmd.Context(), common, roles, options{demo: demo, forTime: forTime, interactive: true})
		},
	}
	cmd.Flags().BoolVar(&demo, "demo", false, "also play the bundled scenario: a small shop that is broken into")
	cmd.Flags().StringSliceVar(&only, "only", nil, "only these parts: broker, store, engine, alerts, collector")
	cmd.Flags().DurationVar(&forTime, "for", 0, "stop by itself after this time")
	return cmd
}

func roleCommand(common *commonFlags, name string, r role, short string) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Long: short + ". The same code as in `tidegate run`, as a process of its own.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRoles(cmd.Context(), common, r, options{})
		},
	}
}

type options struct {
	demo        bool
	interactive bool
	forTime     time.Duration
}

// A process is the parts that run in it.
type process struct {
	cfg       *Config
	log       *slog.Logger
	reg       *prometheus.Registry
	terminal  *terminal // nil: logs only
	lifecycle *lifecycle

	kafka          *kafka.Client
	broker         *embedded.Broker
	storeServer    *embedded.StoreServer
	store          *clickhouse.Store
	identity       pipeline.ID
	shipper        *ship.Shipper
	engine         *engine.Engine
	detectors      *detectors.Loader
	started        atomic.Bool   // every part runs
	welcomePrinted chan struct{} // closed when that was said, or never will be
	storeless      bool          // there is no ClickHouse here: what is judged is not kept
	missing        []string
}

func runRoles(ctx context.Context, common *commonFlags, roles role, opt options) error {
	cfg, err := common.load()
	if err != nil {
		return err
	}
	p := &process{cfg: &cfg, reg: newRegistry(), welcomePrinted: make(chan struct{})}
	level := common.logLevel
	out := os.Stderr
	if opt.interactive {
		p.terminal = newTerminal(os.Stdout)
		if level == "" {
			level = "warn"
		}
	}
	if p.log, err = newLog(level, out, p.terminal); err != nil {
		return err
	}
	p.lifecycle = newLifecycle(p.log)
	if opt.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.forTime)
		defer cancel()
	}
	err = p.start(ctx, roles, opt)
	close(p.welcomePrinted)
	if err == nil {
		err = p.showStatusUntilDone(ctx)
	} else if ctx.Err() != nil {
		err = nil // told to stop while it started
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err = errors.Join(err, p.lifecycle.stopAll(stopping))
	p.printTotals()
	return err
}

// discardLog is for commands whose output is their result.
func discardLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newLog(level string, out *os.File, s *terminal) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("--log-level %s: not debug, info, warn or error", level)
		}
	}
	opts := &slog.HandlerOptions{Level: l}
	if s != nil && s.interactive && isTerminal(out) {
		return slog.New(slog.NewTextHandler(s, opts)), nil // above the counts, which stay in one piece
	}
	return slog.New(slog.NewTextHandler(out, opts)), nil
}

// start starts the parts, each after what it needs.
func (p *process) start(ctx context.Context, roles role, opt options) error {
	if err := os.MkdirAll(p.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if opt.demo {
		if err := p.addDemoFeed(); err != nil {
			return err
		}
	}
	if roles == roleAlerts && len(p.cfg.Alerts.Alertmanager)+len(p.cfg.Alerts.Webhooks) == 0 && p.terminal == nil {
		return errors.New("alerts: there is nowhere to deliver to: give alerts.alertmanager or alerts.webhooks")
	}
	// What is wrong in the rules is told before anything is waited for.
	if roles&roleEngine != 0 {
		var err error
		cfg := detectorConfig(p.cfg)
		cfg.OnReload = func(summary string) { p.printLine("%s", summary) }
		if p.detectors, err = detectors.NewLoader(cfg, p.log, p.reg); err != nil {
			return err
		}
	}
	// The broker's folder comes first: that it is in use says more to who starts a second process than that some port is.
	if roles&roleBroker != 0 && p.cfg.embeddedBroker() {
		if err := p.startBroker(ctx); err != nil {
			return err
		}
	}
	if p.cfg.Metrics.Listen != "" {
		serve, err := serveMetrics(p.cfg.Metrics.Listen, p.reg, p.ready)
		if err != nil {
			return err
		}
		p.lifecycle.startComponent("metrics", serve)
	}
	if roles&roleStore != 0 && p.cfg.embeddedStore() {
		if err := p.startStore(ctx); errors.Is(err, embedded.ErrMissing) && roles != roleStore && roles != roleStore|roleBroker {
			p.storeless = true
			p.missing = append(p.missing, "the store: "+err.Error()+"; events are judged and alerts raised, but nothing is kept")
		} else if err != nil {
			return err
		}
	}
	if roles&(roleEngine|roleAlerts|roleCollector) != 0 {
		if err := p.connectKafka(ctx, roles); err != nil {
			return err
		}
	}
	// The publisher stops after the engine, whose last alerts it still delivers.
	if roles&roleAlerts != 0 {
		if err := p.startAlerts(); err != nil {
			return err
		}
	}
	if roles&roleEngine != 0 {
		if err := p.startEngine(ctx); err != nil {
			return err
		}
	}
	if roles&roleCollector != 0 {
		if err := p.startCollector(ctx); err != nil {
			return err
		}
	}
	p.started.Store(true)
	p.printWelcome(roles)
	if opt.demo && p.shipper != nil {
		p.printLine("demo: a small shop, of which the web container is broken into in a few seconds; its events say event.demo")
		p.lifecycle.startComponent("demo", func(ctx context.Context) error {
			if err := p.playDemo(ctx); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	return nil
}

func (p *process) ready() error {
	if !p.started.Load() {
		return errors.New("starting")
	}
	return nil
}

// showStatusUntilDone shows counts until ctx ends or a part does.
func (p *process) showStatusUntilDone(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	c := &statusSample{}
	for {
		select {
		case <-ctx.Done():
			if p.terminal != nil {
				p.terminal.Done()
				p.terminal.Printf("stopping …")
			}
			return nil
		case err := <-p.lifecycle.failed:
			return err
		case <-tick.C:
			if p.terminal != nil && p.engine != nil {
				p.terminal.Status(p.statusLine(ctx, c))
			}
		}
	}
}
