package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/conntrack"
	"tidegate/collector/containers"
	"tidegate/collector/logs"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/pipeline"
	"tidegate/pipeline/alerts"
	"tidegate/pipeline/clickhouse"
	"tidegate/pipeline/embedded"
	"tidegate/pipeline/engine"
	"tidegate/pipeline/kafka"
	"tidegate/protocols"
	"tidegate/protocols/all"
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
			return runRoles(cmd.Context(), common, roles, options{demo: demo, forTime: forTime, screen: true})
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
	demo    bool
	screen  bool
	forTime time.Duration
}

// A process is the parts that run in it.
type process struct {
	cfg    *Config
	log    *slog.Logger
	reg    *prometheus.Registry
	screen *screen // nil: logs only
	stages *stages

	kafka       *kafka.Client
	broker      *embedded.Broker
	storeServer *embedded.StoreServer
	store       *clickhouse.Store
	identity    pipeline.ID
	shipper     *ship.Shipper
	engine      *engine.Engine
	brain       *brain
	started     atomic.Bool // every part runs
	storeless   bool        // there is no ClickHouse here: what is judged is not kept
	leftOut     []string
}

func runRoles(ctx context.Context, common *commonFlags, roles role, opt options) error {
	cfg, err := common.load()
	if err != nil {
		return err
	}
	p := &process{cfg: &cfg, reg: newRegistry()}
	level := common.logLevel
	out := os.Stderr
	if opt.screen {
		p.screen = newScreen(os.Stdout)
		if level == "" {
			level = "warn"
		}
	}
	if p.log, err = newLog(level, out, p.screen); err != nil {
		return err
	}
	p.stages = newStages(p.log)
	if opt.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.forTime)
		defer cancel()
	}
	err = p.start(ctx, roles, opt)
	if err == nil {
		err = p.wait(ctx)
	} else if ctx.Err() != nil {
		err = nil // told to stop while it started
	}
	stopping, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err = errors.Join(err, p.stages.stopAll(stopping))
	p.sums()
	return err
}

// quietLog is for commands whose output is their result.
func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newLog(level string, out *os.File, s *screen) (*slog.Logger, error) {
	var l slog.Level
	if level != "" {
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("--log-level %s: not debug, info, warn or error", level)
		}
	}
	opts := &slog.HandlerOptions{Level: l}
	if s != nil && s.terminal && isTerminal(out) {
		return slog.New(slog.NewTextHandler(s, opts)), nil // above the counts, which stay in one piece
	}
	return slog.New(slog.NewTextHandler(out, opts)), nil
}

// start starts the parts, each after what it needs.
func (p *process) start(ctx context.Context, roles role, opt options) error {
	if err := os.MkdirAll(p.cfg.State, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w", err)
	}
	if opt.demo {
		if err := p.addDemoFeed(); err != nil {
			return err
		}
	}
	if roles == roleAlerts && len(p.cfg.Alerts.Alertmanager)+len(p.cfg.Alerts.Webhooks) == 0 && p.screen == nil {
		return errors.New("alerts: there is nowhere to deliver to: give alerts.alertmanager or alerts.webhooks")
	}
	// What is wrong in the rules is told before anything is waited for.
	if roles&roleEngine != 0 {
		var err error
		if p.brain, err = newBrain(p.cfg, p.log, p.reg); err != nil {
			return err
		}
		p.brain.say = p.say
	}
	// The broker's folder comes first: that it is in use says more to who starts a second process than that some port is.
	if roles&roleBroker != 0 && p.cfg.embeddedBroker() {
		if err := p.startBroker(ctx); err != nil {
			return err
		}
	}
	if p.cfg.Listen != "" {
		serve, err := serveMetrics(p.cfg.Listen, p.reg, p.ready)
		if err != nil {
			return err
		}
		p.stages.run("metrics", serve)
	}
	if roles&roleStore != 0 && p.cfg.embeddedStore() {
		if err := p.startStore(ctx); errors.Is(err, embedded.ErrMissing) && roles != roleStore && roles != roleStore|roleBroker {
			p.storeless = true
			p.leftOut = append(p.leftOut, "the store: "+err.Error()+"; events are judged and alerts raised, but nothing is kept")
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
	p.welcome(roles)
	if opt.demo && p.shipper != nil {
		p.say("demo: a small shop, of which the web container is broken into in a few seconds; its events say event.demo")
		p.stages.run("demo", func(ctx context.Context) error {
			if err := p.playDemo(ctx); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	return nil
}

func (p *process) startBroker(ctx context.Context) error {
	b, err := embedded.StartBroker(ctx, p.cfg.Embedded.Broker, p.log, p.reg)
	if err != nil {
		return err
	}
	p.broker = b
	p.stages.onStop("broker", func(context.Context) error { return b.Close() })
	return nil
}

func (p *process) startStore(ctx context.Context) error {
	start := time.Now()
	s, err := embedded.StartStore(ctx, p.cfg.Embedded.Store, p.log, p.reg)
	if err != nil {
		return err
	}
	p.storeServer = s
	p.stages.onStop("store", s.Stop)
	p.log.Info("embedded clickhouse answers", "took", time.Since(start))
	return nil
}

// connectKafka makes sure of the topics. The embedded broker is named by its address, so that `run --only broker,store` serves
// processes with the same configuration. A collector alone does not wait for Kafka: what it sees meanwhile is kept by the shipper,
// which makes sure of its topic by itself.
func (p *process) connectKafka(ctx context.Context, roles role) error {
	if p.cfg.embeddedBroker() {
		if p.broker != nil {
			p.cfg.Embedded.Broker.Addr = p.broker.Addr() // it may have picked a port
		}
		p.cfg.Kafka.Brokers, p.cfg.Kafka.Assign = []string{p.cfg.Embedded.Broker.Addr}, kafka.AssignStatic
		p.cfg.Kafka.Partitions, p.cfg.Kafka.ReplicationFactor = p.cfg.Embedded.Broker.Partitions, 1
	}
	k, err := kafka.New(p.cfg.Kafka)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	p.kafka = k
	if roles&(roleEngine|roleAlerts) == 0 {
		return nil
	}
	return p.patiently(ctx, "kafka", func(ctx context.Context) error {
		_, err := k.EnsureTopics(ctx)
		return err
	}, func(err error) bool { return kafka.Sort(err) != kafka.Passing })
}

// patiently tries until it works: what is away comes back, and a collector that gives up is worse than one that waits. Each new
// trouble is told once. fatal tells what no waiting mends.
func (p *process) patiently(ctx context.Context, what string, try func(context.Context) error, fatal func(error) bool) error {
	told := ""
	for wait := 200 * time.Millisecond; ; wait = min(wait*2, 5*time.Second) {
		err := try(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if fatal(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if err.Error() != told {
			told = err.Error()
			p.log.Error("waiting for what is away", "part", what, "err", err)
		}
		if !pause(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (p *process) connectStore(ctx context.Context) error {
	return p.patiently(ctx, "clickhouse", func(ctx context.Context) error {
		cfg, err := p.storeConfig()
		if err != nil {
			return err
		}
		cfg.TTLDays, cfg.AlertTTLDays = p.cfg.ClickHouse.TTLDays, p.cfg.ClickHouse.AlertTTLDays // of an embedded one too
		s, err := clickhouse.Open(ctx, cfg, p.log, p.reg)
		if err != nil {
			return err
		}
		if err := s.Migrate(ctx); err != nil {
			_ = s.Close()
			return err
		}
		p.store = s
		p.stages.onStop("store connection", func(context.Context) error { return s.Close() })
		return nil
	}, func(err error) bool { return clickhouse.IsPermanent(err) || deniedByStore(err) })
}

// deniedByStore tells that the store does not know our user or its password.
func deniedByStore(err error) bool {
	var ex *driver.Exception
	return errors.As(err, &ex) && (ex.Code == 516 || ex.Code >= 192 && ex.Code <= 194)
}

// storeConfig is how the store is reached; one that another process embeds may still be starting.
func (p *process) storeConfig() (clickhouse.Config, error) {
	switch {
	case p.storeServer != nil:
		return p.storeServer.Config(), nil
	case p.cfg.embeddedStore():
		return embedded.StoreAdmin(p.cfg.Embedded.Store.Dir)
	}
	return p.cfg.ClickHouse, nil
}

func (p *process) startEngine(ctx context.Context) error {
	store := engine.Nowhere()
	if !p.storeless {
		if err := p.connectStore(ctx); err != nil {
			return err
		}
		store = engine.ClickHouse(p.store)
	}
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lock("engine"); err != nil {
			return err
		}
	}
	var err error
	p.engine, err = engine.New(p.cfg.Engine, engine.Deps{Kafka: p.kafka, Store: store, Bundle: p.brain.Bundle, Seam: seam()}, p.log, p.reg)
	if err != nil {
		return err
	}
	p.stages.run("detectors", p.brain.watch)
	p.stages.run("engine", p.engine.Run)
	p.stages.onStop("what is in kafka", p.drain)
	return nil
}

// seam is for tests: it kills the process, as kill -9 does, when the engine comes to the named place of a block for the nth time.
func seam() func(string) {
	name, nth, ok := strings.Cut(os.Getenv("TIDEGATE_KILL_AT"), ":")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(nth, 10, 64)
	if err != nil {
		return nil
	}
	var left atomic.Int64 // the workers share it
	left.Store(n)
	return func(at string) {
		if at == name && left.Add(-1) <= 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// drain waits, within the time that a stop may take, until the engine has read what the collector of this process has shipped.
func (p *process) drain(ctx context.Context) error {
	if p.shipper == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	for {
		lag, err := p.lag(ctx)
		if err != nil || lag == 0 || !pause(ctx, 50*time.Millisecond) {
			return nil // what is left is in Kafka and is read next time
		}
	}
}

func (p *process) lag(ctx context.Context) (int64, error) {
	if p.engine == nil {
		return 0, nil
	}
	return p.engine.Lag(ctx)
}

func (p *process) startAlerts() error {
	var onAlert func(*pipeline.Alert)
	if p.screen != nil {
		onAlert = func(a *pipeline.Alert) { p.screen.Printf("%s", alertLine(a)) }
	}
	if p.cfg.Kafka.Assign == kafka.AssignStatic {
		if err := p.lock("alerts"); err != nil {
			return err
		}
	}
	pub, err := alerts.NewPublisher(p.cfg.Alerts, p.kafka, onAlert, p.log, p.reg)
	if err != nil {
		return err
	}
	p.stages.run("alerts", pub.Run)
	return nil
}

// lock keeps a second process of the same role away from a broker on which partitions are assigned statically. It is held until
// the process ends, however it does.
func (p *process) lock(name string) error {
	path := filepath.Join(p.cfg.State, name+".lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("another process is the %s of this state folder (%s is locked)", name, path)
	}
	p.stages.onStop(name+" lock", func(context.Context) error { return f.Close() })
	return nil
}

func (p *process) startCollector(ctx context.Context) error {
	id, err := ship.LoadIdentity(p.cfg.Ship.StateDir)
	if err != nil {
		return err
	}
	p.identity = id
	if p.shipper, err = ship.New(p.cfg.Ship, p.cfg.Kafka, id, p.log, p.reg); err != nil {
		return err
	}
	p.stages.onStop("shipper", p.shipper.Close)

	p.cfg.Containers.Collector = id
	registry := containers.New(p.cfg.Containers, p.log, p.reg)
	p.stages.run("containers", func(ctx context.Context) error { return registry.Run(ctx, p.shipper) })
	select {
	case <-registry.Ready():
	case <-time.After(2 * time.Second):
		p.leftOut = append(p.leftOut, "names of containers: no Docker API at "+p.cfg.Containers.Host)
	case <-ctx.Done():
		return ctx.Err()
	}
	p.startCapture(registry)
	if p.cfg.Logs.Enabled {
		p.cfg.Logs.Born = identityBorn(p.cfg.Ship.StateDir)
		src := logs.New(p.cfg.Logs, registry, id, p.log, p.reg)
		p.stages.run("logs", func(ctx context.Context) error { return src.Run(ctx, p.shipper) })
	}
	return nil
}

// identityBorn is when this collector's state was made.
func identityBorn(dir string) time.Time {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return time.Time{}
	}
	born := time.Now()
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().Before(born) {
			born = info.ModTime()
		}
	}
	return born
}

func (p *process) startCapture(registry *containers.Registry) {
	if err := mayCapture(); err != nil {
		p.leftOut = append(p.leftOut, "packets: "+err.Error())
		return
	}
	tracker := conntrack.New(p.log, p.reg)
	p.stages.run("conntrack", func(ctx context.Context) error {
		if err := tracker.Run(ctx); err != nil {
			p.log.Error("sessions through nat are told by each side", "err", err)
			<-ctx.Done()
		}
		return nil
	})
	shared := sessions.NewShared()
	panicked := p.tellPanics()
	handler := func(_ string, _ int, lane collector.Lane) capture.Handler {
		set := protocols.NewSet(all.Protocols, p.cfg.Protocols, p.reg)
		set.Panicked = panicked
		return sessions.New(p.cfg.Sessions, sessions.Deps{
			Collector: p.identity, Protocols: set,
			Container: registry.ByIP, Who: registry.Who, NAT: tracker, Bridge: p.cfg.Capture.IsBridge, Shared: shared,
			Emit: func(e *pipeline.Event) { lane.TryShip(e) },
		}, p.reg)
	}
	live := capture.NewLive(p.cfg.Capture, p.ownAddresses(), handler, p.log, p.reg)
	p.stages.run("capture", func(ctx context.Context) error { return live.Run(ctx, p.shipper) })
}

// panicsEvery is how often a parser's panic is written down; each is counted.
const panicsEvery = time.Minute

// tellPanics writes down, now and then, where a parser has panicked. It is called by every worker.
func (p *process) tellPanics() func(protocol string, value any, stack []byte) {
	var last atomic.Int64
	return func(protocol string, value any, stack []byte) {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before < int64(panicsEvery) || !last.CompareAndSwap(before, now) {
			return
		}
		p.log.Error("a parser panicked, its connection is ignored from there on; see tidegate_protocols_panics_total", "protocol", protocol, "panic", value, "stack", string(stack))
	}
}

// ownAddresses are those of Kafka and ClickHouse: our own way there is not captured.
func (p *process) ownAddresses() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range slices.Concat(p.cfg.Kafka.Brokers, p.cfg.ClickHouse.Addr, []string{p.cfg.ClickHouse.HTTPAddr}) {
		host, port, err := net.SplitHostPort(a)
		if err != nil {
			continue
		}
		n, err := net.LookupPort("tcp", port)
		if err != nil {
			continue
		}
		ips, err := net.LookupIP(host)
		if err != nil {
			p.log.Warn("own traffic to an unknown host may be captured", "host", host, "err", err)
		}
		for _, ip := range ips {
			if addr, ok := netip.AddrFromSlice(ip); ok {
				out = append(out, netip.AddrPortFrom(addr.Unmap(), uint16(n)))
			}
		}
	}
	return out
}

func (p *process) ready() error {
	if !p.started.Load() {
		return errors.New("starting")
	}
	return nil
}

// wait shows counts until ctx ends or a part does.
func (p *process) wait(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	c := &counts{}
	for {
		select {
		case <-ctx.Done():
			if p.screen != nil {
				p.screen.Done()
				p.screen.Printf("stopping …")
			}
			return nil
		case err := <-p.stages.failed:
			return err
		case <-tick.C:
			if p.screen != nil && p.engine != nil {
				p.screen.Status(p.countsLine(ctx, c))
			}
		}
	}
}
