package sessions

import (
	"net/netip"
	"slices"

	"tidegate/pipeline"
)

// A voice is whether a flow's events are told.
type voice uint8

const (
	undecided voice = iota // they wait in the outbox
	speaks
	mute // another flow tells of the same connection
)

// raise decides at the first packet what can be: a flow on a bridge speaks unless another bridge does; one elsewhere is silent if a
// bridge speaks. See Shared for what guards it.
func (f *flow) raise() {
	t := f.t
	f.bridge = t.ifaces[f.key.iface].bridge
	own := f.own()
	if f.bridge || t.deps.Bridge == nil {
		f.voice = speaks
		if !f.take(own) {
			f.silent()
		}
		return
	}
	if t.shared.taken(own, f) || f.locate() && f.canonical() != own && t.shared.taken(f.canonical(), f) {
		f.silent()
	}
}

// own is the tuple as it was seen.
func (f *flow) own() shareKey {
	k := &f.key
	return shareKey{k.a, k.b, k.aport, k.bport, k.proto}
}

// canonical is the tuple on the container's side.
func (f *flow) canonical() shareKey {
	return shareKeyOf(f.key.proto, f.mapping.Client, f.mapping.Server)
}

// locate asks the connection tracker, until it knows.
func (f *flow) locate() bool {
	if f.mapped || f.t.deps.NAT == nil {
		return f.mapped
	}
	client, server := f.ends()
	f.mapping, f.mapped = f.t.deps.NAT.Lookup(f.transport(), client, server)
	return f.mapped
}

// take claims k.
func (f *flow) take(k shareKey) bool {
	if !f.t.shared.claim(k, f) {
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

// silent makes f a copy that is not told of.
func (f *flow) silent() {
	f.voice = mute
	f.t.m.suppressed.Inc()
	f.t.shared.release(f)
	f.silence()
}

// silence drops what waits in the outbox.
func (f *flow) silence() {
	for i, e := range f.out {
		f.t.m.silenced.Inc()
		pipeline.ReleaseEvent(e)
		f.out[i] = nil
	}
	f.t.out -= len(f.out)
	f.out = f.out[:0]
}

// outEvery is how often a flow whose events wait asks again.
const outEvery = int64(50e6)

// say takes every event of f: those of its parser and its own.
func (f *flow) say(e *pipeline.Event) {
	t := f.t
	if f.voice == speaks && !f.checked {
		f.check()
	}
	if f.voice == undecided {
		f.decide(false, "mapping")
	}
	switch f.voice {
	case speaks:
		f.ship(e)
	case mute:
		t.m.silenced.Inc()
		pipeline.ReleaseEvent(e)
	default:
		if len(f.out) == 0 {
			f.outDue = t.clock + int64(t.cfg.NATWait)
			f.outTry = t.clock + min(outEvery, int64(t.cfg.NATWait))
		}
		f.out = append(f.out, e)
		if t.out++; t.out > t.cfg.Outbox {
			f.decide(true, "full")
		}
	}
}

// check is for a flow on a bridge that is about to tell its first event: by now the connection tracker knows whether it is one leg
// of a connection that crosses the bridge twice, under two tuples (a container that asks the host's published port of another),
// or one that a flow elsewhere has begun to tell of because the bridge was not heard in time.
func (f *flow) check() {
	f.checked = true
	if !f.bridge || !f.locate() {
		return
	}
	if k := f.canonical(); k != f.own() && !f.take(k) {
		f.silent()
		return
	}
	out := shareKeyOf(f.key.proto, f.mapping.OutsideClient, f.mapping.OutsideServer)
	if out != f.own() && f.t.shared.taken(out, f) {
		f.silent()
	}
}

// decide finds out whether f, which is not on a bridge, is told. force: it can wait no longer; why is by what.
func (f *flow) decide(force bool, why string) {
	t := f.t
	known := f.locate()
	keys := [2]shareKey{f.own(), {}}
	n := 1
	if known {
		if k := f.canonical(); k != keys[0] {
			keys[1], n = k, 2
		}
	}
	for _, k := range keys[:n] {
		if t.shared.taken(k, f) {
			f.decided("bridge")
			f.silent()
			return
		}
	}
	if !force && (t.deps.NAT != nil && !known || f.inside()) {
		return
	}
	f.voice = speaks
	for _, k := range keys[:n] {
		if !f.take(k) {
			f.decided("bridge")
			f.silent()
			return
		}
	}
	f.decided(why)
	t.out -= len(f.out)
	for i, e := range f.out {
		f.out[i] = nil
		f.ship(e)
	}
	f.out = f.out[:0]
}

func (f *flow) decided(why string) {
	if len(f.out) > 0 {
		f.t.m.waited[why].Inc()
	}
}

// inside tells whether an end of f is a container of this host: then a bridge is about to show it, if it is captured.
func (f *flow) inside() bool {
	if f.t.deps.Container == nil {
		return false
	}
	client, server := f.ends()
	if f.mapped {
		client, server = f.mapping.Client, f.mapping.Server
	}
	return f.t.deps.Container(client.Addr()) != nil || f.t.deps.Container(server.Addr()) != nil
}

// ship completes e and gives it on.
func (f *flow) ship(e *pipeline.Event) {
	t := f.t
	if f.locate() {
		f.translate(e)
	}
	f.interfaces(e)
	t.introduce(e)
}

// translate gives e the addresses on the container's side, and beside them those outside where they differ.
func (f *flow) translate(e *pipeline.Event) {
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

// interfaces writes down where the connection was seen.
func (f *flow) interfaces(e *pipeline.Event) {
	t := f.t
	e.Interfaces = e.Interfaces[:0]
	if name := t.ifaces[f.key.iface].name; name != "" {
		e.Interfaces = append(e.Interfaces, name)
	}
	if len(*t.shared.names.Load()) < 2 {
		return
	}
	for _, k := range f.claims[:f.nclaims] {
		for _, n := range t.shared.seenOn(k, f.number) {
			if n != 0 {
				e.Interfaces = appendNew(e.Interfaces, t.shared.name(n-1))
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
