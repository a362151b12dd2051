//go:build linux

package capture

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector"
	"tidegate/pipeline/memory"
	"tidegate/pipeline/metrics"
)

// blockBytes is the size of a block of a ring. The kernel hands over a block that holds packets after 20 ms,
// even if the block is not full. The number of blocks therefore bounds the time that a worker may lack a
// core: with 2 blocks of 1 MiB a busy machine lost single packets of a quiet interface. A block must hold the
// longest frame, which has 64 KiB after receive offload has merged segments.
const blockBytes = 256 << 10

// retireAfter is the time after which the kernel hands over a block that is not full.
const retireAfter = 20 * time.Millisecond

// A Handler receives the packets of one worker. It is used by one goroutine. sessions.Table is one.
type Handler interface {
	// Packet receives one frame that was captured on iface. link is the type of its outermost header, at its
	// time in ns since 1970, and wireLen its length on the wire. data is valid until Packet returns.
	Packet(iface string, link layers.LinkType, at int64, data []byte, wireLen int)
	// TrustChecksums says of the packets that follow whether the kernel vouches for their checksums: it has
	// verified them, or knows that they are not filled in yet. It is called when that changes.
	TrustChecksums(trusted bool)
	// SetSentByHost says of the packets that follow whether this host has sent them on the interface; others came to
	// it. It is called when that changes.
	SetSentByHost(sent bool)
	// Tick advances the Handler's clock to now, ns since 1970. It is called at least every 100 ms.
	Tick(now int64)
	// Close ends the use of the Handler. No call follows.
	Close()
}

// A NewHandlerFunc returns the Handler of a worker on iface. Workers of an interface are numbered from 0. The
// Handler ships its events through producer.
type NewHandlerFunc = func(iface string, worker int, producer collector.PacketProducer) Handler

// Live captures on the interfaces of this host. It is a collector.Source.
type Live struct {
	// Memory, unless nil, is charged with the packet rings. It is set before Run.
	Memory *memory.Budget
	// RingsChanged, unless nil, is called with the bytes of all rings when that has changed. It is set before Run.
	RingsChanged func(bytes int64)

	cfg      Config
	excluded []netip.AddrPort
	handler  NewHandlerFunc
	log      *slog.Logger
	rings    ringMemory

	topology Topology

	packets, bytes, drops *prometheus.CounterVec
	failures              *prometheus.CounterVec
	workers               *prometheus.GaugeVec
	uncaptured            prometheus.Gauge
}

// noInterface is the label of a failure to list the interfaces.
const noInterface = "all"

// NewLive returns a source of packets. Connections to and from the excluded addresses, those of our own Kafka
// and ClickHouse, are not captured. handler returns the Handler of each worker.
func NewLive(cfg Config, excluded []netip.AddrPort, handler NewHandlerFunc, log *slog.Logger,
	reg prometheus.Registerer,
) *Live {
	factory := metrics.With(reg)
	return &Live{
		cfg: cfg, excluded: excluded, handler: handler, log: log,
		packets: factory.CounterVec("tidegate_capture_packets_total", "Packets captured.", "interface"),
		bytes: factory.CounterVec("tidegate_capture_bytes_total",
			"Bytes of captured packets, headers included, as far as they were captured.", "interface"),
		drops: factory.CounterVec("tidegate_capture_kernel_drops_total",
			"Packets that the kernel dropped because a capture ring was full.", "interface"),
		failures: factory.LabelledCounters("tidegate_capture_failures_total",
			"Attempts to capture on an interface that failed.", "interface", noInterface),
		rings: ringMemory{limit: int64(cfg.MaxRingBytes)},
		workers: factory.GaugeVec("tidegate_capture_workers",
			"Workers that capture packets, each with a ring of its own.", "interface"),
		uncaptured: factory.Gauge("tidegate_capture_uncaptured_interfaces",
			"Interfaces that are up and not captured, without the loopback and the ends of containers' cables (veth)."),
	}
}

// A liveState is the state of one call of Run between its scans.
type liveState struct {
	workers    sync.WaitGroup
	running    map[int]capturedInterface // by interface index
	lastErrors map[string]string         // by interface name; an error is logged once until it changes
	counted    map[string]bool           // names of interfaces that have metrics
	uncaptured map[string]bool           // names of interfaces that are not captured
}

// A capturedInterface is one that has workers.
type capturedInterface struct {
	name string
	done chan struct{} // closed when the workers have ended
}

// Run captures until ctx ends. After each change of the topology, and once a second, it starts workers on the selected
// interfaces that have none: new interfaces, and those whose workers ended because the interface was down.
func (l *Live) Run(ctx context.Context, ship collector.Shipper) error {
	l.rings.account, l.rings.changed = l.Memory.OpenFixed("rings"), l.RingsChanged
	defer l.rings.account.Close()
	state := &liveState{
		running: map[int]capturedInterface{}, lastErrors: map[string]string{},
		counted: map[string]bool{}, uncaptured: map[string]bool{},
	}
	defer state.workers.Wait()
	rescan := time.NewTicker(time.Second)
	defer rescan.Stop()
	for {
		if interfaces, err := net.Interfaces(); err == nil {
			l.startMissing(ctx, state, interfaces, ship)
			l.countUncaptured(interfaces, state.uncaptured)
			l.retireMetrics(interfaces, state)
		} else {
			l.failures.WithLabelValues(noInterface).Inc()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.topology.Links:
		case <-l.topology.Networks:
		case <-rescan.C:
		}
	}
}

// startMissing starts workers on the selected interfaces that are up and have none.
func (l *Live) startMissing(
	ctx context.Context, state *liveState, interfaces []net.Interface, ship collector.Shipper,
) {
	for index, captured := range state.running {
		select {
		case <-captured.done:
			delete(state.running, index)
		default:
		}
	}
	for _, iface := range interfaces {
		if _, runs := state.running[iface.Index]; runs || iface.Flags&net.FlagUp == 0 || !l.isSelected(iface.Name) {
			continue
		}

		// An interface that cannot be captured is tried again at the next scan.
		state.counted[iface.Name] = true
		l.failures.WithLabelValues(iface.Name)
		l.drops.WithLabelValues(iface.Name)
		rings, err := l.openRings(&iface)
		if err != nil {
			l.failures.WithLabelValues(iface.Name).Inc()
			if state.lastErrors[iface.Name] != err.Error() {
				l.log.Error("cannot capture on interface", "interface", iface.Name, "err", err)
				state.lastErrors[iface.Name] = err.Error()
			}
			continue
		}
		delete(state.lastErrors, iface.Name)
		done := l.startWorkers(ctx, &state.workers, rings, ship)
		state.running[iface.Index] = capturedInterface{iface.Name, done}
		l.log.Info("capturing", "interface", iface.Name, "workers", len(rings), "bridge", l.IsBridge(iface.Name))
	}
}

// openRings returns one ring for each worker of an interface, all of them in one fanout group.
func (l *Live) openRings(iface *net.Interface) ([]*ring, error) {
	filter, err := compileFilter(l.excluded)
	if err != nil {
		return nil, err
	}
	workers := l.cfg.Workers
	if workers == 0 {
		workers = min(runtime.GOMAXPROCS(0), 4)
	}
	size := l.rings.reserve(int64(l.cfg.RingBytes), workers)
	cfg := ringConfig{
		bytes: int(size), blockBytes: blockBytes, retireAfter: retireAfter,
		promiscuous: l.IsBridge(iface.Name),
	}
	if workers > 1 { // without a group every ring would get every packet
		cfg.group = &fanoutGroup{}
	}

	// Open all rings, or none. They receive packets only when all of them have joined the group: each packet
	// then comes to the ring that gets all packets of its connection.
	var rings []*ring
	for range workers {
		var opened *ring
		if opened, err = openRing(iface, cfg); err != nil {
			break
		}
		opened.reserved = cfg.bytes
		rings = append(rings, opened)
	}
	for i := 0; i < len(rings) && err == nil; i++ {
		err = rings[i].setFilter(filter)
	}
	if err != nil {
		l.closeRings(rings)
		l.rings.release(size * int64(workers-len(rings)))
		return nil, err
	}
	return rings, nil
}

func (l *Live) closeRings(rings []*ring) {
	for _, ring := range rings {
		ring.close()
		l.rings.release(int64(ring.reserved))
	}
}

// startWorkers starts a worker for each ring. The workers of an interface end together, since the packets of a
// worker that has ended would come to no one, or, when its ring has left the group, to the wrong ones. The
// returned channel is closed when all workers have ended and the rings are closed.
func (l *Live) startWorkers(ctx context.Context, wg *sync.WaitGroup, rings []*ring,
	ship collector.Shipper,
) chan struct{} {
	done := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	var workers sync.WaitGroup
	for i, ring := range rings {
		producer := ship.Packets("packets/" + ring.iface + "/" + strconv.Itoa(i))
		handler := l.handler(ring.iface, i, producer)
		workers.Go(func() {
			defer producer.Close()
			defer stop()
			l.runWorker(ctx, ring, handler)
		})
	}
	wg.Go(func() {
		workers.Wait()
		stop()
		l.closeRings(rings)
		close(done)
	})
	return done
}

// runWorker passes the packets of one ring to handler until ctx ends or the interface is gone.
func (l *Live) runWorker(ctx context.Context, ring *ring, handler Handler) {
	defer handler.Close()
	l.workers.WithLabelValues(ring.iface).Inc()
	defer l.workers.WithLabelValues(ring.iface).Dec()
	packets, bytes := l.packets.WithLabelValues(ring.iface), l.bytes.WithLabelValues(ring.iface)
	var captured int // bytes of one call of read
	trusted, sentByHost := false, false
	handler.TrustChecksums(trusted)
	handler.SetSentByHost(sentByHost)
	handle := func(at int64, data []byte, wireLen int, vouched, sent bool) {
		captured += len(data)
		if vouched != trusted {
			trusted = vouched
			handler.TrustChecksums(trusted)
		}
		if sent != sentByHost {
			sentByHost = sent
			handler.SetSentByHost(sentByHost)
		}
		handler.Packet(ring.iface, ring.link, at, data, wireLen)
	}

	// One turn: wait up to 100 ms, read every block that is ready, advance the clock, and count the kernel's
	// drops once a second.
	var dropsCounted time.Time
	for ctx.Err() == nil {
		err := ring.wait(100 * time.Millisecond)
		captured = 0
		packets.Add(float64(ring.read(handle)))
		bytes.Add(float64(captured))
		now := time.Now()
		handler.Tick(now.UnixNano())
		if now.Sub(dropsCounted) >= time.Second {
			l.countDrops(ring)
			dropsCounted = now
		}
		if errors.Is(err, errInterfaceGone) {
			l.log.Info("interface is gone", "interface", ring.iface)
			break
		}
		if err != nil {
			l.log.Error("capture ended", "interface", ring.iface, "err", err)
			break
		}
	}

	// Read the packets that are still in the ring: their sessions are open until handler.Close.
	captured = 0
	packets.Add(float64(l.drain(ring, handle)))
	bytes.Add(float64(captured))
}

// maxDrain bounds the wait for the last block of a ring, which a timer of the kernel hands over after retireAfter. On a
// busy machine timers are late.
const maxDrain = 2 * time.Second

// drain ends the reception of packets and reads those that are still in the ring. It returns their number. Packets that
// the kernel does not hand over in time count as dropped.
func (l *Live) drain(r *ring, handle readFunc) (packets int) {
	if r.setFilter(dropAll) != nil {
		packets = r.read(handle)
		l.countDrops(r)
		return packets
	}
	for began := time.Now(); ; {
		time.Sleep(retireAfter)
		packets += r.read(handle)
		l.countDrops(r)
		switch {
		case r.unread <= 0:
			return packets
		case time.Since(began) > maxDrain:
			l.drops.WithLabelValues(r.iface).Add(float64(r.unread))
			return packets
		}
	}
}

// countDrops adds the packets that the kernel dropped since the last call.
func (l *Live) countDrops(r *ring) {
	if drops, err := r.statistics(); err == nil {
		l.drops.WithLabelValues(r.iface).Add(float64(drops))
	}
}
