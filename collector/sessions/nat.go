package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// natState is a flow's mapping, once it is known.
type natState struct {
	known   bool
	mapping Mapping
}

// locateMapping looks the mapping up until the connection tracker knows it. It reports whether f.nat.mapping
// is valid.
func (f *flow) locateMapping() bool {
	if f.nat.known || f.t.deps.NAT == nil {
		return f.nat.known
	}
	client, server := f.endpoints()
	f.nat.mapping, f.nat.known = f.t.deps.NAT.Lookup(f.transport(), client, server)
	return f.nat.known
}

// translateNAT replaces the addresses of e by those on the container's side. The outside ones go into nat.ip
// and nat.port where they differ.
func (f *flow) translateNAT(event *pipeline.Event) {
	mapping := &f.nat.mapping
	if !mapping.isTranslated() {
		return
	}

	// Each end has either the inside or the outside form; which one depends on the interface.
	changed := false
	for _, end := range [...]*pipeline.Endpoint{event.Source, event.Destination} {
		if end == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(end.Ip)
		if !ok {
			continue
		}
		seen := netip.AddrPortFrom(ip.Unmap(), uint16(end.Port))
		inside, outside := netip.AddrPort{}, netip.AddrPort{}
		switch seen {
		case mapping.Client, mapping.OutsideClient:
			inside, outside = mapping.Client, mapping.OutsideClient
		case mapping.Server, mapping.OutsideServer:
			inside, outside = mapping.Server, mapping.OutsideServer
		default:
			continue
		}
		if inside == outside {
			continue
		}
		changed = changed || seen != inside
		setAddress(end, inside)
		end.NatIp, end.NatPort = appendIP(end.NatIp[:0], outside.Addr()), uint32(outside.Port())
	}

	// The community id is that of the addresses that the event shows.
	if changed {
		id := pipeline.CommunityID(f.transport(), mapping.Client, mapping.Server)
		event.CommunityId = append(event.CommunityId[:0], id[:]...)
	}
}
