//go:build linux

package capture

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
)

// Config says what is captured. The zero value captures nothing; Default is what a Docker host wants.
type Config struct {
	// Interfaces are the names, or patterns of names, that are captured; they are found as they come and go.
	Interfaces []string `yaml:"interfaces"`
	// Bridges are those among them that containers hang on: they are made promiscuous, and a session seen there and elsewhere is
	// told once, from there.
	Bridges []string `yaml:"bridges"`
	// Workers per interface, each with a ring and a session table of its own; 0: one per core, at most 4.
	Workers int `yaml:"workers"`
	// RingBytes is the size of each ring.
	RingBytes int `yaml:"ring_bytes"`
}

// Default is every Docker bridge and eth0.
func Default() Config {
	return Config{Interfaces: []string{"docker0", "br-*", "eth0"}, Bridges: []string{"docker0", "br-*"}, RingBytes: 8 << 20}
}

// blockBytes is the size of a block of a ring. The kernel hands over a block with anything in it every 20 ms, however little that is, so
// it is the number of blocks that bounds how long a worker may be kept from its core: with 2 blocks of 1 MiB a busy machine lost
// single packets of a quiet interface. A block must hold the longest frame, which is 64 KiB behind a card that puts segments together.
const blockBytes = 256 << 10

const leastRing = 2 << 20

// Check reports everything that is wrong with c.
func (c Config) Check() []error {
	var errs []error
	for key, list := range map[string][]string{"interfaces": c.Interfaces, "bridges": c.Bridges} {
		for _, p := range list {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				errs = append(errs, fmt.Errorf("%s: %q is not a name or pattern of an interface", key, p))
			}
			if p == "any" {
				errs = append(errs, fmt.Errorf("%s: \"any\" shows each packet several times; name the interfaces", key))
			}
		}
	}
	if c.Workers < 0 || c.Workers > 64 {
		errs = append(errs, fmt.Errorf("workers: %d is not between 0 and 64", c.Workers))
	}
	if c.RingBytes < leastRing || c.RingBytes > 1<<30 {
		errs = append(errs, fmt.Errorf("ring_bytes: %d is not between 2 MiB and 1 GiB", c.RingBytes))
	}
	return errs
}

// IsBridge tells whether containers hang on the interface of that name.
func (c Config) IsBridge(name string) bool { return matchAny(c.Bridges, name) }

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}

// A Handler takes what one worker captures; it is used by one goroutine. sessions.Table is one.
type Handler interface {
	// Packet is one frame; data is valid until it returns.
	Packet(iface string, link layers.LinkType, at int64, data []byte, wireLen int)
	// Tick tells that time has come to now, at least every 100 ms.
	Tick(now int64)
	// Close tells that no more comes.
	Close()
}

// Live captures on the interfaces of this host. It is a collector.Source.
type Live struct {
	cfg     Config
	own     []netip.AddrPort
	handler func(iface string, worker int, lane collector.Lane) Handler
	log     *slog.Logger

	packets, bytes, drops *prometheus.CounterVec
	failures              *prometheus.CounterVec
	open                  *prometheus.GaugeVec
}

// NewLive makes a source of packets. own are the addresses of our Kafka and ClickHouse, which are left out; handler makes what a
// worker's packets go to.
func NewLive(cfg Config, own []netip.AddrPort, handler func(iface string, worker int, lane collector.Lane) Handler, log *slog.Logger, reg prometheus.Registerer) *Live {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "tidegate_capture_" + name, Help: help}, labels)
		reg.MustRegister(c)
		return c
	}
	l := &Live{
		cfg: cfg, own: own, handler: handler, log: log,
		packets:  counter("packets_total", "Packets read from the ring.", "interface"),
		bytes:    counter("bytes_total", "Bytes of these packets, as captured.", "interface"),
		drops:    counter("kernel_drops_total", "Packets that the kernel dropped because a ring was full.", "interface"),
		failures: counter("failures_total", "Interfaces that could not be captured, or were lost.", "interface"),
		open:     prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "tidegate_capture_workers", Help: "Workers that capture."}, []string{"interface"}),
	}
	reg.MustRegister(l.open)
	return l
}

// Run captures until ctx ends: each second it looks for interfaces that have come.
func (l *Live) Run(ctx context.Context, ship collector.Shipper) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[int]chan struct{}{} // by interface index: closed when its workers have ended
	said := map[string]string{}        // by name: the last trouble, which is told once
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		for _, ifi := range l.wanted() {
			if done := running[ifi.Index]; done != nil {
				select {
				case <-done:
					delete(running, ifi.Index)
				default:
					continue
				}
			}
			rings, err := l.openRings(&ifi)
			if err != nil {
				l.failures.WithLabelValues(ifi.Name).Inc()
				if said[ifi.Name] != err.Error() {
					l.log.Error("interface is not captured", "interface", ifi.Name, "err", err)
					said[ifi.Name] = err.Error()
				}
				continue
			}
			delete(said, ifi.Name)
			running[ifi.Index] = l.start(ctx, &wg, rings, ship)
			l.log.Info("capturing", "interface", ifi.Name, "workers", len(rings), "bridge", l.cfg.IsBridge(ifi.Name))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// wanted are the interfaces that are up and match.
func (l *Live) wanted() []net.Interface {
	all, err := net.Interfaces()
	if err != nil {
		l.failures.WithLabelValues("all").Inc()
		return nil
	}
	var out []net.Interface
	for _, ifi := range all {
		if ifi.Flags&net.FlagUp != 0 && matchAny(l.cfg.Interfaces, ifi.Name) {
			out = append(out, ifi)
		}
	}
	return out
}

func (l *Live) openRings(ifi *net.Interface) ([]*ring, error) {
	filter, err := exclude(l.own)
	if err != nil {
		return nil, err
	}
	cfg := ringConfig{bytes: l.cfg.RingBytes, blockBytes: blockBytes, retire: 20 * time.Millisecond, promiscuous: l.cfg.IsBridge(ifi.Name), filter: filter}
	n := l.cfg.Workers
	if n == 0 {
		n = min(runtime.GOMAXPROCS(0), 4)
	}
	if n > 1 {
		cfg.group = &fanout{}
	}
	var rings []*ring
	for range n {
		r, err := openRing(ifi, cfg)
		if err != nil {
			for _, r := range rings {
				r.close()
			}
			return nil, err
		}
		rings = append(rings, r)
	}
	return rings, nil
}

func (l *Live) start(ctx context.Context, wg *sync.WaitGroup, rings []*ring, ship collector.Shipper) chan struct{} {
	done := make(chan struct{})
	var workers sync.WaitGroup
	for i, r := range rings {
		lane := ship.Lane("wire/" + r.iface + "/" + strconv.Itoa(i))
		h := l.handler(r.iface, i, lane)
		workers.Go(func() {
			defer lane.Close(false)
			l.work(ctx, r, h)
		})
	}
	wg.Go(func() {
		workers.Wait()
		close(done)
	})
	return done
}

// work is the life of one worker: wait, read what is there, tick, count.
func (l *Live) work(ctx context.Context, r *ring, h Handler) {
	defer r.close()
	defer h.Close()
	l.open.WithLabelValues(r.iface).Inc()
	defer l.open.WithLabelValues(r.iface).Dec()
	packets, bytes := l.packets.WithLabelValues(r.iface), l.bytes.WithLabelValues(r.iface)
	var size int
	f := func(at int64, data []byte, wireLen int) {
		size += len(data)
		h.Packet(r.iface, r.link, at, data, wireLen)
	}
	var counted time.Time
	for ctx.Err() == nil {
		err := r.wait(100 * time.Millisecond)
		size = 0
		n := r.read(f)
		packets.Add(float64(n))
		bytes.Add(float64(size))
		now := time.Now()
		h.Tick(now.UnixNano())
		if now.Sub(counted) >= time.Second {
			l.countDrops(r)
			counted = now
		}
		if err != nil {
			if !errors.Is(err, errGone) {
				l.log.Error("capture ended", "interface", r.iface, "err", err)
			} else {
				l.log.Info("interface is gone", "interface", r.iface)
			}
			break
		}
	}
	packets.Add(float64(r.read(f)))
	l.countDrops(r)
}

func (l *Live) countDrops(r *ring) {
	if _, drops, err := r.stats(); err == nil {
		l.drops.WithLabelValues(r.iface).Add(float64(drops))
	}
}
