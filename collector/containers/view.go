package containers

import (
	"net/netip"

	"tidegate/collector/links"
	"tidegate/pipeline"
)

// A view is an immutable snapshot of the Registry for readers.
type view struct {
	byID     map[string]containerView
	byIP     map[netip.Addr]owners
	byMAC    map[MAC]owners
	logs     []LogFile
	all      []*pipeline.Container
	bridges  []string
	overlays []links.Overlay
	subnets  []netip.Prefix
	routers  map[netip.Addr]bool // addresses of the host in subnets
}

type containerView struct {
	container *pipeline.Container
	status    Status
}

// ByID returns the container with that full id, or nil. The result is immutable.
func (r *Registry) ByID(id string) *pipeline.Container { return r.view.Load().byID[id].container }

// ByIP returns the container that has an address, or had it last, or nil. The result is immutable.
func (r *Registry) ByIP(ip netip.Addr) *pipeline.Container {
	list := r.view.Load().byIP[ip.Unmap()]
	if len(list) == 0 {
		return nil
	}
	return list[len(list)-1].container
}

// Resolve returns the container that had an address at a time, in ns since 1970, nil if that is not known. final is
// false while the answer may still change: the address is in a network of Docker, and no container is known that had
// it then or later. The API reports the start of a container slightly after the container's first packets.
func (r *Registry) Resolve(ip netip.Addr, at int64) (container *pipeline.Container, final bool) {
	view := r.view.Load()
	ip = ip.Unmap()
	list := view.byIP[ip]
	if owner := list.ownerAt(at); owner != nil {
		return owner.container, true
	}

	// The API reports changes in their order: with a later owner, or with two, no other one comes.
	if len(list) > 0 && (list[len(list)-1].from > at || list[len(list)-1].covers(at)) {
		return nil, true
	}

	// Any other address of Docker's networks, except the host's, may belong to a container that was not
	// reported yet.
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

// CheckSender reports whether a frame from the MAC address mac has the source address of another at a time, in ns since
// 1970: that of a container whose MAC address is a different one, or that of the host in a network of Docker. mac is
// not of this host. real is the container that had mac then, nil if that is not known.
func (r *Registry) CheckSender(ip netip.Addr, mac MAC, at int64) (real *pipeline.Container, spoofed bool) {
	view := r.view.Load()
	ip = ip.Unmap()
	owner := view.byIP[ip].ownerAt(at)
	switch {
	case owner != nil:
		spoofed = owner.mac != 0 && owner.mac != mac
	default:
		spoofed = view.routers[ip]
	}
	if !spoofed {
		return nil, false
	}
	if sender := view.byMAC[mac].ownerAt(at); sender != nil {
		real = sender.container
	}
	return real, true
}

// HasMAC reports whether a container has an Ethernet address, or had it a while ago.
func (r *Registry) HasMAC(mac MAC) bool { return len(r.view.Load().byMAC[mac]) > 0 }

// Status returns the status of a container. The collector's own container is excluded also without an API.
func (r *Registry) Status(id string) Status {
	if c, ok := r.view.Load().byID[id]; ok {
		return c.status
	}
	return Status{Excluded: r.isSelf(id, "")}
}

// Containers returns all containers of the registry, including those that stopped less than KeepAfterExit
// ago.
func (r *Registry) Containers() []*pipeline.Container { return r.view.Load().all }

// Logs returns the log files of the containers that exist and are not excluded.
func (r *Registry) Logs() []LogFile { return r.view.Load().logs }

// Bridges returns the interface names of Docker's bridge networks: docker0, br-<12 hex digits>, or the
// configured name.
func (r *Registry) Bridges() []string { return r.view.Load().bridges }

// Overlays returns the VXLAN networks of Docker's overlay networks.
func (r *Registry) Overlays() []links.Overlay { return r.view.Load().overlays }

// publish replaces the view by one of the current state and notifies the subscribers. r.mu is held.
func (r *Registry) publish() {
	r.trimTombstones()
	next := &view{
		byID:    make(map[string]containerView, len(r.entries)),
		routers: map[netip.Addr]bool{}, overlays: r.overlays,
	}
	next.byIP, next.byMAC = addressIndex(r.entries)
	excluded := 0
	for id, e := range r.entries {
		next.byID[id] = containerView{e.container, Status{Known: true, Running: e.running, Excluded: e.excluded}}
		next.all = append(next.all, e.container)
		switch {
		case e.removed:
		case e.excluded:
			excluded++
		default:
			next.logs = append(next.logs, e.log)
		}
	}

	// Add the networks and the addresses of the host in them.
	for _, network := range r.networks {
		next.bridges = append(next.bridges, network.bridge)
		next.subnets = append(next.subnets, network.subnets...)
		for _, ip := range network.routers {
			next.routers[ip] = true
		}
	}

	// The view does not change any more. Subscribers are notified after it can be read.
	r.view.Store(next)
	r.metrics.known.Set(float64(len(r.entries)))
	r.metrics.excluded.Set(float64(excluded))

	for _, subscriber := range r.subscribers {
		select {
		case subscriber <- struct{}{}:
		default: // the channel still holds a value
		}
	}
}
