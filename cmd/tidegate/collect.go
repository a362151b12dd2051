package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/conntrack"
	"tidegate/collector/containers"
	"tidegate/collector/links"
	"tidegate/collector/logs"
	"tidegate/collector/logs/discover"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/pipeline"
	"tidegate/pipeline/logging"
	"tidegate/pipeline/memory"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

// startCollector starts the sources of this host and the shipper that receives their events.
func (p *process) startCollector(ctx context.Context) error {
	id, err := collector.LoadID(p.cfg.Shipper.StateDir)
	if err != nil {
		return err
	}
	p.identity = id
	if p.shipper, err = ship.New(p.cfg.Shipper, p.cfg.Kafka, id, p.log, p.reg); err != nil {
		return err
	}
	p.lifecycle.addStopHook("shipper", p.shipper.Close)

	// The sources start when the registry has read the containers, or after two seconds without them.
	p.cfg.Containers.Collector = id
	budget := memory.New(int64(p.cfg.trafficMemory()), p.reg)
	registry := containers.New(p.cfg.Containers, p.log, p.reg)
	registry.Memory = budget
	registry.QuietIfAbsent = p.terminal != nil // the welcome has a line for it
	p.lifecycle.startComponent("containers", func(ctx context.Context) error { return registry.Run(ctx, p.shipper) })
	select {
	case <-registry.Ready():
	case <-time.After(2 * time.Second):
		p.missing = append(p.missing, "container names: no Docker API at "+p.cfg.Containers.DockerHost)
	case <-ctx.Done():
		return ctx.Err()
	}

	p.startCapture(registry, budget)
	if p.cfg.Logs.Enabled {
		p.cfg.Logs.NotBefore = stateCreatedAt(p.cfg.Shipper.StateDir)
		source := logs.New(p.cfg.Logs, registry, id, p.log, p.reg)
		source.QuietIfAbsent = p.terminal != nil
		folder := discover.Docker{Root: p.cfg.Logs.DockerDataRoot}.Folder()
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			p.missing = append(p.missing, "container logs: no folder "+folder+"; they are read once it is there")
		}
		p.lifecycle.startComponent("logs", func(ctx context.Context) error { return source.Run(ctx, p.shipper) })
	}
	return nil
}

// stateCreatedAt returns the modification time of the oldest file in dir, the collector's state folder. It
// returns the zero time if dir cannot be read.
func stateCreatedAt(dir string) time.Time {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return time.Time{}
	}
	oldest := time.Now()
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.ModTime().Before(oldest) {
			oldest = info.ModTime()
		}
	}
	return oldest
}

// startCapture starts the capture of packets, if this user may open packet sockets. All workers share the
// connection tracker and the table that determines which copy of a connection is reported.
func (p *process) startCapture(registry *containers.Registry, budget *memory.Budget) {
	if err := checkPacketSocket(); err != nil {
		p.missing = append(p.missing, "packets: "+err.Error())
		return
	}
	p.captures = true

	tracker := conntrack.New(p.log, p.reg)
	tracker.Memory = budget
	p.lifecycle.startComponent("conntrack", func(ctx context.Context) error {
		if err := tracker.Run(ctx); err != nil {
			p.log.Error("connection tracker unavailable: a connection through NAT is reported by each interface",
				"err", err)
			<-ctx.Done() // capture runs without the tracker
		}
		return nil
	})

	monitor := links.NewMonitor(p.cfg.Capture.Underlays, registry.Overlays, p.log, p.reg)
	monitor.KnownMAC = registry.HasMAC
	p.lifecycle.startComponent("links", monitor.Run)

	// Each worker of the capture has a parser set and a session table of its own. They share the budget with the
	// registry and the tracker: the memory that logs, shipper and the process itself leave.
	dedup := sessions.NewDedupTable()
	panicked := p.panicLogger()
	var live *capture.Live
	isBridge := func(iface string) bool { return live.IsBridge(iface) }
	handler := func(_ string, _ int, producer collector.PacketProducer) capture.Handler {
		set := protocols.NewSet(all.Protocols, p.cfg.Protocols, p.reg)
		set.Panicked = panicked
		return sessions.New(p.cfg.Sessions, sessions.Deps{
			Collector: p.identity, Protocols: set,
			Containers: registry, Senders: registry, IsHostMAC: monitor.IsHostMAC,
			IsMACOfBridge: monitor.IsMACOfBridge, HasMovedMAC: monitor.HasMovedMAC, NAT: tracker, Bridge: isBridge,
			IsOutsideBridge: monitor.IsOutsideBridge,
			Tunnels:         monitor, IsTranslated: tracker.IsTranslated, Dedup: dedup, Memory: budget,
			Emit: func(event *pipeline.Event) { producer.TryShip(event) },
		}, p.reg)
	}

	live = capture.NewLive(p.cfg.Capture, p.ownEndpoints(), handler, p.log, p.reg)
	live.Memory, live.RingsChanged = budget, p.leaveForRings
	live.Follow(capture.Topology{
		Links: monitor.Subscribe(), Networks: registry.Subscribe(), DockerBridges: registry.Bridges,
	})
	p.lifecycle.startComponent("capture", func(ctx context.Context) error { return live.Run(ctx, p.shipper) })
}

// panicLogInterval is the least time between two log lines about panics of parsers. Each panic is counted.
const panicLogInterval = time.Minute

// panicLogger returns a function that logs the panic of a parser. All workers call it.
func (p *process) panicLogger() func(protocol string, value any, stack []byte) {
	throttle := logging.NewThrottle(panicLogInterval)
	return func(protocol string, value any, stack []byte) {
		suppressed, ok := throttle.Allow()
		if !ok {
			return
		}
		p.log.Error("parser panicked; the rest of its connection is ignored, see tidegate_protocols_panics_total",
			"protocol", protocol, "panic", value, "suppressed", suppressed, "stack", string(stack))
	}
}

// advertisedBrokers returns the addresses that the brokers advertise, to which batches are sent. They may
// differ from the configured addresses. It returns none if Kafka does not answer within two seconds.
func (p *process) advertisedBrokers() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	brokers, err := p.kafka.AdvertisedBrokers(ctx)
	if err != nil {
		p.log.Warn("kafka does not answer: traffic to brokers that are not configured may be captured", "err", err)
	}
	return brokers
}

// ownEndpoints returns the addresses of Kafka and ClickHouse. Traffic to them is not captured: each event
// would cause more events.
func (p *process) ownEndpoints() []netip.AddrPort {
	addresses := slices.Concat(
		p.cfg.Kafka.Brokers, p.advertisedBrokers(), p.cfg.ClickHouse.Addr, []string{p.cfg.ClickHouse.HTTPAddr},
	)
	var endpoints []netip.AddrPort
	for _, address := range addresses {
		for _, endpoint := range p.resolveEndpoint(address) {
			if !slices.Contains(endpoints, endpoint) {
				endpoints = append(endpoints, endpoint)
			}
		}
	}
	return endpoints
}

// resolveEndpoint returns the IP addresses and port of address. It returns none if address is not host:port.
func (p *process) resolveEndpoint(address string) []netip.AddrPort {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	port, err := net.LookupPort("tcp", service)
	if err != nil {
		return nil
	}
	ips, err := net.LookupIP(host)
	if err != nil {
		p.log.Warn("host name does not resolve: own traffic to it may be captured", "host", host, "err", err)
	}
	var endpoints []netip.AddrPort
	for _, ip := range ips {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			endpoints = append(endpoints, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
		}
	}
	return endpoints
}
