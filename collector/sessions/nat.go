package sessions

import (
	"net/netip"

	"tidegate/pipeline"
)

// natState holds the Mapping of a flow, which is valid if known is set.
type natState struct {
	known   bool
	mapping Mapping
}

// locateMapping looks up the mapping of f unless it is known. It reports whether f.nat.mapping is valid. The addresses
// in a tunnel are not those of a connection of this host, even if both are equal.
func (f *flow) locateMapping() bool {
	if f.nat.known || f.table.deps.NAT == nil || f.tunnel != nil {
		return f.nat.known
	}
	client, server := f.endpoints()
	f.nat.mapping, f.nat.known = f.table.deps.NAT.Lookup(f.transport(), client, server)
	return f.nat.known
}

// translateNAT replaces the addresses of the event by those on the container's side, and sets nat.ip and
// nat.port to the addresses on the other side where they differ.
func (f *flow) translateNAT(event *pipeline.Event) {
	mapping := &f.nat.mapping
	if !mapping.isTranslated() {
		return
	}

	// Each end of the event has the inside or the outside form, depending on the interface. Write both.
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

	// The community id must match the addresses in the event.
	if changed {
		id := pipeline.CommunityID(f.transport(), mapping.Client, mapping.Server)
		event.CommunityId = append(event.CommunityId[:0], id[:]...)
	}
}
