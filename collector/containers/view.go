package containers

import (
	"net/netip"

	"tidegate/pipeline"
)

// A view is a snapshot of the Registry for readers: nothing in it is ever changed.
type view struct {
	byID    map[string]containerView
	byIP    map[netip.Addr]addressOwner
	logs    []LogFile
	all     []*pipeline.Container
	bridges []string
	subnets []netip.Prefix
	routers map[netip.Addr]bool // addresses in subnets that are the host's
}

type containerView struct {
	container *pipeline.Container
	status    Status
}

// A addressOwner is the container that has an address, or had it last.
type addressOwner struct {
	container *pipeline.Container
	ended     int64 // ns since 1970; 0: it runs
}

// ByID returns the container with that full id; nil: it is not known. The result is immutable.
func (r *Registry) ByID(id string) *pipeline.Container { return r.view.Load().byID[id].container }

// ByIP returns the container that has an address, or had it last; nil: none. The result is immutable.
func (r *Registry) ByIP(ip netip.Addr) *pipeline.Container {
	return r.view.Load().byIP[ip.Unmap()].container
}

// Resolve returns the container that had an address at a time, in ns since 1970. settled is false while the
// answer may still change: the address is one of Docker's, and no container is known to have had it then. The
// API reports a start a moment after the container's first packets.
func (r *Registry) Resolve(ip netip.Addr, at int64) (container *pipeline.Container, settled bool) {
	view := r.view.Load()
	ip = ip.Unmap()

	// The container that runs with the address, or had not ended at that time.
	if h, ok := view.byIP[ip]; ok && (h.ended == 0 || at <= h.ended) {
		return h.container, true
	}
	// Another address of Docker's networks may belong to a container that was not reported yet, except the
	// host's own.
	if view.routers[ip] {
		return nil, true
	}
	for _, subnet := range view.subnets {
		if subnet.Contains(ip) {
			return nil, false
		}
	}
	return nil, true
}

// Status returns the status of a container. The collector's own container is known without an API.
func (r *Registry) Status(id string) Status {
	if c, ok := r.view.Load().byID[id]; ok {
		return c.status
	}
	return Status{Excluded: r.isSelf(id, "")}
}

// Containers returns all containers that are known, including those that ended a short while ago.
func (r *Registry) Containers() []*pipeline.Container { return r.view.Load().all }

// Logs returns the log files of the containers that exist and are not excluded.
func (r *Registry) Logs() []LogFile { return r.view.Load().logs }

// Bridges returns the interfaces of Docker's bridge networks: docker0, br-<12 hex digits>, or as configured
// there.
func (r *Registry) Bridges() []string { return r.view.Load().bridges }

// publish makes a view of the current state and notifies the subscribers. r.mu is held.
func (r *Registry) publish() {
	v := &view{
		byID:    make(map[string]containerView, len(r.entries)),
		byIP:    make(map[netip.Addr]addressOwner, len(r.entries)),
		routers: map[netip.Addr]bool{},
	}
	best := make(map[netip.Addr]*entry, len(r.entries)) // the entry of each address in v.byIP
	for id, e := range r.entries {
		v.byID[id] = containerView{e.container, Status{Known: true, Running: e.running, Excluded: e.excluded}}
		v.all = append(v.all, e.container)
		if !e.removed && !e.excluded {
			v.logs = append(v.logs, e.log)
		}
		for _, ip := range e.ips {
			if other := best[ip]; other == nil || e.outranks(other) {
				best[ip] = e
				v.byIP[ip] = e.holder()
			}
		}
	}

	// Networks.
	for _, n := range r.networks {
		v.bridges = append(v.bridges, n.bridge)
		v.subnets = append(v.subnets, n.subnets...)
		for _, ip := range n.routers {
			v.routers[ip] = true
		}
	}
	r.view.Store(v)
	r.metrics.known.Set(float64(len(r.entries)))

	for _, subscriber := range r.subscribers {
		select {
		case subscriber <- struct{}{}:
		default: // it has not received the last value yet
		}
	}
}

func (e *entry) holder() addressOwner {
	h := addressOwner{container: e.container}
	if !e.running && !e.ended.IsZero() {
		h.ended = e.ended.UnixNano()
	}
	return h
}

// outranks reports whether e has a better claim to an address than other: it runs, or it ended later.
func (e *entry) outranks(other *entry) bool {
	if e.running != other.running {
		return e.running
	}
	return e.ended.After(other.ended)
}
