//go:build linux

package links

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"tidegate/pipeline/metrics"
	"tidegate/pipeline/retry"
)

// An Overlay is an overlay network of Docker. Its VXLAN device is in a network namespace of dockerd's, where the
// kernel does not list it for this one.
type Overlay struct {
	ID   uint32 // VNI
	Port uint16
}

// A Monitor follows the interfaces of the network namespace in which Run is called.
type Monitor struct {
	// KnownMAC, unless nil, reports whether an Ethernet address is that of a container. It is set before Run.
	KnownMAC func(mac uint64) bool

	log       *slog.Logger
	underlays []string         // patterns of the names of interfaces on which every tunnel is known
	overlays  func() []Overlay // of Docker; nil: none
	view      atomic.Pointer[view]
	bridges   *forwarding

	reads, failures prometheus.Counter
	known           prometheus.Gauge

	mu          sync.Mutex // guards the following
	subscribers []chan struct{}
}

// NewMonitor returns a Monitor that is empty until Run is called, except for underlays, the names or patterns of
// names of the interfaces on which every tunnel is known. overlays returns Docker's overlay networks; it may be nil.
func NewMonitor(underlays []string, overlays func() []Overlay, log *slog.Logger, reg prometheus.Registerer) *Monitor {
	factory := metrics.With(reg)
	monitor := &Monitor{
		log: log, underlays: underlays, overlays: overlays,
		reads: factory.Counter("tidegate_links_reads_total",
			"Reads of the list of network interfaces: one at the start, and one after each change."),
		failures: factory.Counter("tidegate_links_failures_total",
			"Failures to read the list of network interfaces, or to follow its changes."),
		known: factory.Gauge("tidegate_links_tunnels", "Tunnels of the kernel and of Docker that end on this host."),
	}
	monitor.bridges = newForwarding(factory)
	monitor.view.Store(&view{})
	return monitor
}

// Subscribe returns a channel that receives a value after every change of the interfaces. It is never closed.
func (m *Monitor) Subscribe() <-chan struct{} {
	changed := make(chan struct{}, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subscribers = append(m.subscribers, changed)
	return changed
}

// IsKnown reports whether the tunnel of a packet that was captured on iface ends on this host, or iface is one on
// which every tunnel is known.
func (m *Monitor) IsKnown(iface string, outer OuterHeader) bool {
	for _, pattern := range m.underlays {
		if ok, _ := path.Match(pattern, iface); ok {
			return true
		}
	}
	view := m.view.Load()
	for i := range view.tunnels {
		if tunnel := &view.tunnels[i]; tunnel.isUnder(iface) && tunnel.matches(&outer) {
			return true
		}
	}

	// Docker's networks come and go without a change of the interfaces here.
	if m.overlays == nil || outer.Kind != VXLAN {
		return false
	}
	for _, overlay := range m.overlays() {
		tunnel := tunnel{kind: VXLAN, port: overlay.Port, id: overlay.ID, locals: view.locals}
		if tunnel.matches(&outer) {
			return true
		}
	}
	return false
}

// IsHostMAC reports whether mac, its first byte in the upper ones, is the Ethernet address of an interface of
// this host. Until the interfaces have been read it reports true for every one.
func (m *Monitor) IsHostMAC(mac uint64) bool {
	macs := m.view.Load().macs
	return macs == nil || macs[mac]
}

// IsMACOfBridge reports whether mac, its first byte in the upper ones, is the Ethernet address of a bridge or
// of one of its ports. The host sends with it, and nobody else.
func (m *Monitor) IsMACOfBridge(bridge string, mac uint64) bool {
	return m.view.Load().bridgeMACs[bridgeMAC{bridge, mac}]
}

// IsOutsideBridge reports whether ip is an address of none of the networks of a bridge, of which the host has an
// address. It is not known, and so false, of a bridge without an address of that family.
func (m *Monitor) IsOutsideBridge(bridge string, ip netip.Addr) bool {
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
		return false
	}
	known := false
	for _, network := range m.view.Load().bridgeNets[bridge] {
		if network.Contains(ip) {
			return false
		}
		known = known || network.Addr().Is4() == ip.Is4() && !network.Addr().IsLinkLocalUnicast()
	}
	return known
}

// HasMovedMAC reports whether mac, its first byte in the upper ones, has moved from one port of a bridge to another
// about a time, in ns since 1970: two containers have sent with it.
func (m *Monitor) HasMovedMAC(mac uint64, at int64) bool { return m.bridges.hasMoved(mac, at) }

// groups are the notifications that a Monitor subscribes to: changes of interfaces and of their addresses.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1)

const (
	// settleAfter is the time after a change at which everything is read once more: the device that the change was
	// about may be on its way to another namespace.
	settleAfter = 100 * time.Millisecond
	// rereadEvery is the time after which everything is read again without a change.
	rereadEvery = 5 * time.Second
)

// Run follows the interfaces until ctx ends. After an error it subscribes and reads again.
func (m *Monitor) Run(ctx context.Context) error {
	backoff := retry.Backoff{Min: 100 * time.Millisecond, Max: time.Minute}
	for {
		err := m.follow(ctx, &backoff)
		if ctx.Err() != nil {
			return nil
		}
		m.failures.Inc()
		m.log.Warn("cannot follow the network interfaces, retrying", "err", err)
		if backoff.Wait(ctx) != nil {
			return nil
		}
	}
}

// follow subscribes to changes, reads everything, and reads it again after each change, until ctx ends or netlink
// fails. The subscription comes first, so that no change between the two is missed.
func (m *Monitor) follow(ctx context.Context, backoff *retry.Backoff) error {
	changes, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: groups})
	if err != nil {
		return fmt.Errorf("subscribe to changes of interfaces: %w", err)
	}
	defer func() { _ = changes.Close() }()
	requests, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { _ = requests.Close() }()
	neighbours, err := openNeighbours()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() { _ = changes.Close() })
	defer stop()
	m.bridges.known = m.KnownMAC
	var reader sync.WaitGroup
	reader.Go(func() { cancel(m.bridges.run(ctx, neighbours)) })
	defer reader.Wait()
	defer cancel(nil)

	pause := settleAfter
	for {
		next, err := readView(requests)
		if err != nil {
			return fmt.Errorf("read the interfaces: %w", err)
		}
		m.publish(next)
		backoff.Reset()

		// A lost notification (ENOBUFS) is a change, too. Changes in other namespaces have none.
		if err := changes.SetReadDeadline(time.Now().Add(pause)); err != nil {
			return fmt.Errorf("receive changes of interfaces: %w", err)
		}
		switch _, err := changes.Receive(); {
		case err == nil, errors.Is(err, unix.ENOBUFS):
			pause = settleAfter
		case errors.Is(err, os.ErrDeadlineExceeded):
			pause = rereadEvery
		case ctx.Err() != nil: // also when the bridges cannot be followed any more
			return context.Cause(ctx)
		default:
			return fmt.Errorf("receive changes of interfaces: %w", err)
		}
	}
}

// publish replaces the view and notifies the subscribers.
func (m *Monitor) publish(next *view) {
	old := m.view.Swap(next)
	m.reads.Inc()
	m.known.Set(float64(len(next.tunnels)))
	if next.hidden != "" && next.hidden != old.hidden {
		m.log.Warn("cannot look into every network namespace for devices of tunnels that end on this host; "+
			"capture.underlays opens their tunnels all the same", "err", next.hidden)
	}
	for i := range next.tunnels {
		if tunnel := &next.tunnels[i]; !old.hasTunnel(tunnel) {
			m.log.Info("tunnel of this host", "type", tunnel.kind.String(), "device", tunnel.device,
				"port", tunnel.port, "id", tunnel.id, "any_id", tunnel.anyID, "interfaces", tunnel.interfaces)
		}
	}

	m.mu.Lock()
	defer m.mu.Unlock()
	for _, subscriber := range m.subscribers {
		select {
		case subscriber <- struct{}{}:
		default: // the channel still holds a value
		}
	}
}

// A bridgeMAC is an Ethernet address of a bridge.
type bridgeMAC struct {
	bridge string
	mac    uint64
}

// A view is an immutable snapshot.
type view struct {
	tunnels []tunnel
	locals  []netip.Addr // all addresses of this host
	macs    map[uint64]bool

	bridgeMACs map[bridgeMAC]bool        // of bridges and their ports
	bridgeNets map[string][]netip.Prefix // of bridges, as their addresses have them
	hidden     string                    // why some namespaces were not looked at
}

func (v *view) hasTunnel(wanted *tunnel) bool {
	for i := range v.tunnels {
		if t := &v.tunnels[i]; t.device == wanted.device && t.kind == wanted.kind && t.port == wanted.port &&
			t.id == wanted.id {
			return true
		}
	}
	return false
}
