//go:build linux

package capture

import (
	"net"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A Topology gives access to the networks of this host, as packages links and containers describe them. The zero
// value describes none.
type Topology struct {
	// Links and Networks receive a value when an interface or a network of Docker was added, changed or removed.
	Links, Networks <-chan struct{}
	// DockerBridges returns the names of the interfaces of Docker's bridge networks.
	DockerBridges func() []string
}

// Follow makes Run act on changes of the topology at once, not only once a second. It must be called before Run.
func (l *Live) Follow(topology Topology) { l.topology = topology }

// IsBridge reports whether containers are attached to an interface, by the configuration or because it is that of a
// network of Docker.
func (l *Live) IsBridge(name string) bool { return l.cfg.IsBridge(name) || l.isDockerBridge(name) }

func (l *Live) isDockerBridge(name string) bool {
	return l.topology.DockerBridges != nil && slices.Contains(l.topology.DockerBridges(), name)
}

// isSelected reports whether an interface is to be captured: one that matches the configuration, or the bridge of a
// network of Docker with a name of its own.
func (l *Live) isSelected(name string) bool {
	return matchAny(l.cfg.Interfaces, name) ||
		l.cfg.DockerBridges && len(l.cfg.Interfaces) > 0 && l.isDockerBridge(name)
}

// countUncaptured counts and logs the interfaces that are up and not captured, each once. The ends
// of containers' cables, veth…, are ports of bridges.
func (l *Live) countUncaptured(interfaces []net.Interface, uncaptured map[string]bool) {
	present := map[string]bool{}
	for _, iface := range interfaces {
		if iface.Flags&net.FlagUp == 0 || iface.Flags&net.FlagLoopback != 0 || l.isSelected(iface.Name) ||
			strings.HasPrefix(iface.Name, "veth") {
			continue
		}
		present[iface.Name] = true
		if !uncaptured[iface.Name] {
			uncaptured[iface.Name] = true
			l.log.Info("interface is not captured: capture.interfaces does not match it", "interface", iface.Name)
		}
	}
	for name := range uncaptured {
		if !present[name] {
			delete(uncaptured, name)
		}
	}
	l.uncaptured.Set(float64(len(uncaptured)))
}

// removedInterfaces is the value of the label interface for the counts of interfaces that do not exist any more.
const removedInterfaces = "removed"

// retireMetrics moves the counts of interfaces that do not exist any more to the label "removed", so that the series of
// a host on which networks come and go stay as few as its interfaces, and sums over all interfaces stay right.
func (l *Live) retireMetrics(interfaces []net.Interface, state *liveState) {
	present := map[string]bool{}
	for _, iface := range interfaces {
		present[iface.Name] = true
	}
	for _, captured := range state.running { // its workers still count
		present[captured.name] = true
	}
	for name := range state.counted {
		if present[name] {
			continue
		}
		for _, vec := range [...]*prometheus.CounterVec{l.packets, l.bytes, l.drops, l.failures} {
			var value dto.Metric
			if vec.WithLabelValues(name).Write(&value) == nil {
				vec.WithLabelValues(removedInterfaces).Add(value.GetCounter().GetValue())
			}
			vec.DeleteLabelValues(name)
		}
		l.workers.DeleteLabelValues(name)
		delete(state.counted, name)
		delete(state.lastErrors, name)
	}
}
