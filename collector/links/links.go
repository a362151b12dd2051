// Package links follows the network interfaces of this host as the kernel describes them: which of them exist, and
// which tunnels end on them.
//
// A Monitor reads the interfaces, their addresses and their tunnels over rtnetlink and follows the kernel's
// notifications. Package capture waits for its notifications to capture a new interface at once. Package sessions asks
// it whether a tunnel is one of this host: whoever can send a UDP datagram can send one that looks like VXLAN, so a
// tunnel is opened only where the kernel would open it too, or where the operator says so.
//
// Run is one goroutine, the only one that writes. It publishes an immutable snapshot; readers take no lock.
package links

import (
	"net/netip"
	"slices"
)

// An Encapsulation is a kind of header that has another packet behind it.
type Encapsulation uint8

// The encapsulations that package sessions can open.
const (
	NoEncapsulation Encapsulation = iota
	VXLAN
	Geneve
	GTP
	GRE
	IPIP // IP in IP, of either version
	MPLS
	PPPoE
	AH    // IPsec's authentication header
	VNTag // Cisco's, later IEEE 802.1BR
	SNAP  // IP behind an LLC header instead of an EtherType
	ETag  // IEEE 802.1BR
	RTag  // of redundant paths, IEEE 802.1CB
	HSR   // of redundant rings, IEC 62439-3
	CMD   // Cisco MetaData, which has a security group
	TTag  // Cisco's time stamp
	PBB   // Ethernet in Ethernet, IEEE 802.1ah
	TRILL
	NSH        // network service header, RFC 8300
	FabricPath // Cisco's
	EtherIP    // Ethernet in IP, RFC 3378
	Teredo     // IPv6 in UDP, RFC 4380
	numEncapsulations
)

var encapsulationNames = [numEncapsulations]string{
	"", "vxlan", "geneve", "gtp", "gre", "ipip", "mpls", "pppoe", "ah", "vntag", "snap", "etag", "rtag", "hsr", "cmd", "ttag",
	"pbb", "trill", "nsh", "fabricpath", "etherip", "teredo",
}

func (e Encapsulation) String() string { return encapsulationNames[e] }

// Encapsulations are all encapsulations.
func Encapsulations() []Encapsulation {
	list := make([]Encapsulation, 0, numEncapsulations-1)
	for e := NoEncapsulation + 1; e < numEncapsulations; e++ {
		list = append(list, e)
	}
	return list
}

// UDP ports of tunnels.
const (
	PortVXLAN      = 4789
	PortVXLANLinux = 8472 // Linux's default, older than the assigned one
	PortGeneve     = 6081
	PortGTP        = 2152
	PortGRE        = 4754 // RFC 8086
	PortVXLANGPE   = 4790 // of the draft for VXLAN with other payloads than Ethernet
	PortMPLS       = 6635 // RFC 7510
	PortTeredo     = 3544
)

// An OuterHeader describes a packet that has another one inside.
type OuterHeader struct {
	Kind     Encapsulation
	Nested   bool       // it is itself inside a tunnel
	Src, Dst netip.Addr // the zero Addr if the header is not behind one of IP
	SrcPort  uint16     // of UDP
	DstPort  uint16
	ID       uint32 // VNI of VXLAN and Geneve, key of GRE
}

// A tunnel is one that ends on this host. The zero Addr matches any address.
type tunnel struct {
	kind   Encapsulation
	device string     // its name; "": the device is in another network namespace
	port   uint16     // UDP port to which both ends send; 0: not in UDP
	id     uint32     // VNI or key
	anyID  bool       // the device takes any id
	local  netip.Addr // address of this end
	remote netip.Addr // address of the other end, where the kernel checks it

	interfaces []string     // on which its packets are seen; nil: all
	locals     []netip.Addr // the addresses that this end may have if local is not set
}

// isUnder reports whether packets of the tunnel may be seen on iface.
func (t *tunnel) isUnder(iface string) bool {
	return t.interfaces == nil || slices.Contains(t.interfaces, iface)
}

// matches reports whether a packet with the header outer belongs to the tunnel.
func (t *tunnel) matches(outer *OuterHeader) bool {
	if t.kind != outer.Kind || outer.Nested || t.port != outer.DstPort || !t.anyID && t.id != outer.ID {
		return false
	}
	return t.endsAt(outer.Dst, outer.Src) || t.endsAt(outer.Src, outer.Dst)
}

// endsAt reports whether the tunnel has the end local on this host and the end remote elsewhere.
func (t *tunnel) endsAt(local, remote netip.Addr) bool {
	if t.remote.IsValid() && t.remote != remote {
		return false
	}
	if t.local.IsValid() {
		return t.local == local
	}
	return slices.Contains(t.locals, local)
}
