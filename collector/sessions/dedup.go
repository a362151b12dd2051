package sessions

import (
	"net/netip"
	"slices"

	"tidegate/pipeline"
)

// A dedupState is whether a flow's events are told.
type dedupState uint8

const (
	pending dedupState = iota // they wait in the outbox
	primary
	duplicate // another flow tells of the same connection
)

// claimFirst decides at the first packet what can be: a flow on a bridge speaks unless another bridge does; one elsewhere is silent if a
// bridge speaks. See DedupTable for what guards it.
func (f *flow) claimFirst() {
	t := f.t
	f.bridge = t.ifaces[f.key.iface].bridge
	own := f.ownKey()
	if f.bridge || t.deps.Bridge == nil {
		f.dedup = primary
		if !f.claimKey(own) {
			f.markDuplicate()
		}
		return
	}
	if t.dedup.taken(own, f) || f.locateMapping() && f.canonicalKey() != own && t.dedup.taken(f.canonicalKey(), f) {
		f.markDuplicate()
	}
}

// ownKey is the tuple as it was seen.
func (f *flow) ownKey() claimKey {
	k := &f.key
	return claimKey{k.a, k.b, k.aport, k.bport, k.proto}
}

// canonicalKey is the tuple on the container's side.
func (f *flow) canonicalKey() claimKey {
	return claimKeyOf(f.key.proto, f.mapping.Client, f.mapping.Server)
}

// locateMapping asks the connection tracker, until it knows.
func (f *flow) locateMapping() bool {
	if f.mapped || f.t.deps.NAT == nil {
		return f.mapped
	}
	client, server := f.endpoints()
	f.mapping, f.mapped = f.t.deps.NAT.Lookup(f.transport(), client, server)
	return f.mapped
}

// claimKey claims k.
func (f *flow) claimKey(k claimKey) bool {
	if !f.t.dedup.claim(k, f) {
		return false
	}
	if slices.Contains(f.claims[:f.nclaims], k) {
		return true
	}
	if f.nclaims < len(f.claims) {
		f.claims[f.nclaims] = k
		f.nclaims++
	}
	return true
}

// markDuplicate makes f a copy that is not told of.
func (f *flow) markDuplicate() {
	f.dedup = duplicate
	f.t.m.duplicates.Inc()
	f.t.dedup.release(f)
	f.dropOutbox()
}

// dropOutbox drops what waits in the outbox.
func (f *flow) dropOutbox() {
	for i, e := range f.outbox {
		f.t.m.duplicateEvents.Inc()
		pipeline.ReleaseEvent(e)
		f.outbox[i] = nil
	}
	f.t.outboxEvents -= len(f.outbox)
	f.outbox = f.outbox[:0]
}

// outboxRetryEvery is how often a flow whose events wait asks again.
const outboxRetryEvery = int64(50e6)

// emitEvent takes every event of f: those of its parser and its own.
func (f *flow) emitEvent(e *pipeline.Event) {
	t := f.t
	if f.dedup == primary && !f.checked {
		f.confirmPrimary()
	}
	if f.dedup == pending {
		f.resolveDedup(false, "mapping")
	}
	switch f.dedup {
	case primary:
		f.forwardEvent(e)
	case duplicate:
		t.m.duplicateEvents.Inc()
		pipeline.ReleaseEvent(e)
	default:
		if len(f.outbox) == 0 {
			f.outboxDeadline = t.clock + int64(t.cfg.NATWait)
			f.outboxRetry = t.clock + min(outboxRetryEvery, int64(t.cfg.NATWait))
		}
		f.outbox = append(f.outbox, e)
		if t.outboxEvents++; t.outboxEvents > t.cfg.Outbox {
			f.resolveDedup(true, "full")
		}
	}
}

// confirmPrimary is for a flow on a bridge that is about to tell its first event: by now the connection tracker knows whether it is one leg
// of a connection that crosses the bridge twice, under two tuples (a container that asks the host's published port of another),
// or one that a flow elsewhere has begun to tell of because the bridge was not heard in time.
func (f *flow) confirmPrimary() {
	f.checked = true
	if !f.bridge || !f.locateMapping() {
		return
	}
	if k := f.canonicalKey(); k != f.ownKey() && !f.claimKey(k) {
		f.markDuplicate()
		return
	}
	out := claimKeyOf(f.key.proto, f.mapping.OutsideClient, f.mapping.OutsideServer)
	if out != f.ownKey() && f.t.dedup.taken(out, f) {
		f.markDuplicate()
	}
}

// resolveDedup finds out whether f, which is not on a bridge, is told. force: it can wait no longer; why is by what.
func (f *flow) resolveDedup(force bool, why string) {
	t := f.t
	known := f.locateMapping()
	keys := [2]claimKey{f.ownKey(), {}}
	n := 1
	if known {
		if k := f.canonicalKey(); k != keys[0] {
			keys[1], n = k, 2
		}
	}
	for _, k := range keys[:n] {
		if t.dedup.taken(k, f) {
			f.countDecision("bridge")
			f.markDuplicate()
			return
		}
	}
	if !force && (t.deps.NAT != nil && !known || f.hasLocalEndpoint()) {
		return
	}
	f.dedup = primary
	for _, k := range keys[:n] {
		if !f.claimKey(k) {
			f.countDecision("bridge")
			f.markDuplicate()
			return
		}
	}
	f.countDecision(why)
	t.outboxEvents -= len(f.outbox)
	for i, e := range f.outbox {
		f.outbox[i] = nil
		f.forwardEvent(e)
	}
	f.outbox = f.outbox[:0]
}

func (f *flow) countDecision(why string) {
	if len(f.outbox) > 0 {
		f.t.m.pendingSessions[why].Inc()
	}
}

// hasLocalEndpoint tells whether an end of f is a container of this host: then a bridge is about to show it, if it is captured.
func (f *flow) hasLocalEndpoint() bool {
	if f.t.deps.Container == nil {
		return false
	}
	client, server := f.endpoints()
	if f.mapped {
		client, server = f.mapping.Client, f.mapping.Server
	}
	return f.t.deps.Container(client.Addr()) != nil || f.t.deps.Container(server.Addr()) != nil
}

// forwardEvent completes e and gives it on.
func (f *flow) forwardEvent(e *pipeline.Event) {
	t := f.t
	if f.locateMapping() {
		f.translateNAT(e)
	}
	f.setInterfaces(e)
	t.enrich(e)
}

// translateNAT gives e the addresses on the container's side, and beside them those outside where they differ.
func (f *flow) translateNAT(e *pipeline.Event) {
	m := &f.mapping
	if m.Client == m.OutsideClient && m.Server == m.OutsideServer {
		return
	}
	moved := false
	for _, p := range [...]*pipeline.Endpoint{e.Source, e.Destination} {
		if p == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(p.Ip)
		if !ok {
			continue
		}
		in, out := netip.AddrPort{}, netip.AddrPort{}
		switch seen := netip.AddrPortFrom(ip.Unmap(), uint16(p.Port)); seen {
		case m.Client, m.OutsideClient:
			in, out = m.Client, m.OutsideClient
		case m.Server, m.OutsideServer:
			in, out = m.Server, m.OutsideServer
		default:
			continue
		}
		if in == out {
			continue
		}
		moved = moved || netip.AddrPortFrom(ip.Unmap(), uint16(p.Port)) != in
		setAddress(p, in)
		p.NatIp, p.NatPort = appendIP(p.NatIp[:0], out.Addr()), uint32(out.Port())
	}
	if moved {
		id := pipeline.CommunityID(f.transport(), m.Client, m.Server)
		e.CommunityId = append(e.CommunityId[:0], id[:]...)
	}
}

// setInterfaces writes down where the connection was seen.
func (f *flow) setInterfaces(e *pipeline.Event) {
	t := f.t
	e.Interfaces = e.Interfaces[:0]
	if name := t.ifaces[f.key.iface].name; name != "" {
		e.Interfaces = append(e.Interfaces, name)
	}
	if len(*t.dedup.names.Load()) < 2 {
		return
	}
	for _, k := range f.claims[:f.nclaims] {
		for _, n := range t.dedup.seenOn(k, f.number) {
			if n != 0 {
				e.Interfaces = appendNew(e.Interfaces, t.dedup.name(n-1))
			}
		}
	}
}

func appendNew(list []string, name string) []string {
	if name == "" || slices.Contains(list, name) {
		return list
	}
	return append(list, name)
}
