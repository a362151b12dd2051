package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"tidegate/collector"
	"tidegate/collector/capture"
	"tidegate/collector/conntrack"
	"tidegate/collector/containers"
	"tidegate/collector/logs"
	"tidegate/collector/sessions"
	"tidegate/collector/ship"
	"tidegate/pipeline"
	"tidegate/protocols"
	"tidegate/protocols/all"
)

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

	p.cfg.Containers.Collector = id
	registry := containers.New(p.cfg.Containers, p.log, p.reg)
	p.lifecycle.startComponent("containers", func(ctx context.Context) error { return registry.Run(ctx, p.shipper) })
	select {
	case <-registry.Ready():
	case <-time.After(2 * time.Second):
		p.missing = append(p.missing, "names of containers: no Docker API at "+p.cfg.Containers.DockerHost)
	case <-ctx.Done():
		return ctx.Err()
	}
	p.startCapture(registry)
	if p.cfg.Logs.Enabled {
		p.cfg.Logs.Born = stateCreatedAt(p.cfg.Shipper.StateDir)
		src := logs.New(p.cfg.Logs, registry, id, p.log, p.reg)
		p.lifecycle.startComponent("logs", func(ctx context.Context) error { return src.Run(ctx, p.shipper) })
	}
	return nil
}

// stateCreatedAt is when this collector's state was made.
func stateCreatedAt(dir string) time.Time {
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
	if err := checkPacketSocket(); err != nil {
		p.missing = append(p.missing, "packets: "+err.Error())
		return
	}
	tracker := conntrack.New(p.log, p.reg)
	p.lifecycle.startComponent("conntrack", func(ctx context.Context) error {
		if err := tracker.Run(ctx); err != nil {
			p.log.Error("connection tracker unavailable: a connection through NAT is reported by each interface", "err", err)
			<-ctx.Done()
		}
		return nil
	})
	dedup := sessions.NewDedupTable()
	panicked := p.panicLogger()
	handler := func(_ string, _ int, producer collector.PacketProducer) capture.Handler {
		set := protocols.NewSet(all.Protocols, p.cfg.Protocols, p.reg)
		set.Panicked = panicked
		return sessions.New(p.cfg.Sessions, sessions.Deps{
			Collector: p.identity, Protocols: set,
			Containers: registry, NAT: tracker, Bridge: p.cfg.Capture.IsBridge, Dedup: dedup,
			Emit: func(e *pipeline.Event) { producer.TryShip(e) },
		}, p.reg)
	}
	live := capture.NewLive(p.cfg.Capture, p.ownEndpoints(), handler, p.log, p.reg)
	p.lifecycle.startComponent("capture", func(ctx context.Context) error { return live.Run(ctx, p.shipper) })
}

// panicLogInterval is how often a parser's panic is written down; each is counted.
const panicLogInterval = time.Minute

// panicLogger writes down, now and then, where a parser has panicked. It is called by every worker.
func (p *process) panicLogger() func(protocol string, value any, stack []byte) {
	var last atomic.Int64
	return func(protocol string, value any, stack []byte) {
		now, before := time.Now().UnixNano(), last.Load()
		if now-before < int64(panicLogInterval) || !last.CompareAndSwap(before, now) {
			return
		}
		p.log.Error("a parser panicked, its connection is ignored from there on; see tidegate_protocols_panics_total", "protocol", protocol, "panic", value, "stack", string(stack))
	}
}

// advertisedBrokers are the addresses that the brokers give for themselves, as far as Kafka answers now: batches go there, not to those that
// were configured.
func (p *process) advertisedBrokers() []string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	brokers, err := p.kafka.AdvertisedBrokers(ctx)
	if err != nil {
		p.log.Warn("traffic to brokers that are not configured may be captured: kafka does not answer", "err", err)
	}
	return brokers
}

// ownEndpoints are those of Kafka and ClickHouse: our own way there is not captured.
func (p *process) ownEndpoints() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range slices.Concat(p.cfg.Kafka.Brokers, p.advertisedBrokers(), p.cfg.ClickHouse.Addr, []string{p.cfg.ClickHouse.HTTPAddr}) {
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
				if own := netip.AddrPortFrom(addr.Unmap(), uint16(n)); !slices.Contains(out, own) {
					out = append(out, own)
				}
			}
		}
	}
	return out
}
