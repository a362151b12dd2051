package sessions

import (
	"fmt"

	"tidegate/collector/links"
	"tidegate/pipeline/metrics"
)

// An Undecoded names the header at which the decoding of a packet ended: the layer that has the number of the next
// header, and that number. The zero value stands for a packet that was decoded, or that is damaged.
type Undecoded struct {
	Layer  Layer
	Number uint64
}

// A Layer is a header that says what follows it.
type Layer uint8

// The layers.
const (
	noLayer       Layer = iota
	LayerLink           // of a capture file or an interface, by link type
	LayerEther          // EtherType
	LayerLLC            // destination service access point
	LayerSNAP           // the organisation's code, 24 bits, and its protocol, 16 bits
	LayerPPP            // protocol
	LayerLoopback       // address family
	LayerWLAN           // frame type and subtype of IEEE 802.11, or one of the reasons wlan…
	LayerMPLS           // first four bits of the payload
	LayerNSH            // next protocol
	LayerGRE            // protocol type
	LayerIP             // protocol
	LayerTunnel         // a tunnel that was not opened, by kind
	numLayers
)

var layerNames = [numLayers]string{
	"", "link", "ethertype", "llc", "snap", "ppp", "loopback", "wlan", "mpls", "nsh", "gre", "ip", "tunnel",
}

func (l Layer) String() string { return layerNames[l] }

// What a packet of IEEE 802.11 is instead of a readable one. Frame types and subtypes have six bits.
const (
	wlanEncrypted = 0x100 + iota
	wlanFragment
	wlanDamaged
)

// undecodedNames are the numbers that have counters of their own. Whoever sends packets chooses the numbers, so all
// others share one counter for each layer.
var undecodedNames = map[Undecoded]string{
	{LayerEther, 0x0806}: "arp", {LayerEther, 0x8035}: "rarp", {LayerEther, 0x8137}: "ipx", {LayerEther, 0x809b}: "appletalk",
	{LayerEther, 0x8863}: "pppoe_discovery", {LayerEther, 0x888e}: "eapol", {LayerEther, 0x88cc}: "lldp",
	{LayerEther, 0x8809}: "slow_protocols", {LayerEther, 0x88e5}: "macsec", {LayerEther, 0x88f7}: "ptp",
	{LayerEther, 0x8902}: "cfm", {LayerEther, 0x8906}: "fcoe", {LayerEther, 0x88a2}: "aoe", {LayerEther, 0x8892}: "profinet",
	{LayerEther, 0x88a4}: "ethercat", {LayerEther, 0x88b8}: "goose", {LayerEther, 0x88fb}: "hsr_supervision",
	{LayerEther, 0x9000}: "loopback", {LayerEther, 0x0842}: "wake_on_lan", {LayerEther, 0x4305}: "batman",
	{LayerLLC, 0x42}: "stp", {LayerLLC, 0xe0}: "ipx", {LayerLLC, 0xff}: "ipx_raw", {LayerLLC, 0xf0}: "netbios", {LayerLLC, 0xfe}: "osi",
	{LayerSNAP, 0x000c2000}: "cdp", {LayerSNAP, 0x000c2003}: "vtp", {LayerSNAP, 0x000c2004}: "dtp", {LayerSNAP, 0x000c010b}: "pvst",
	{LayerPPP, 0x8021}: "ipcp", {LayerPPP, 0x8057}: "ipv6cp", {LayerPPP, 0xc021}: "lcp", {LayerPPP, 0xc023}: "pap",
	{LayerPPP, 0xc223}: "chap", {LayerPPP, 0x3d}: "multilink", {LayerPPP, 0xfd}: "compressed",
	{LayerIP, 1}: "icmp", {LayerIP, 2}: "igmp", {LayerIP, 33}: "dccp", {LayerIP, 46}: "rsvp", {LayerIP, 50}: "esp", {LayerIP, 58}: "icmpv6",
	{LayerIP, 59}: "no_next_header", {LayerIP, 88}: "eigrp", {LayerIP, 89}: "ospf", {LayerIP, 103}: "pim", {LayerIP, 112}: "vrrp",
	{LayerIP, 115}: "l2tp", {LayerIP, 132}: "sctp", {LayerIP, 136}: "udplite",
	{LayerGRE, 0x0000}: "keepalive", {LayerGRE, 0x2001}: "nhrp", {LayerGRE, 0x883e}: "wccp",
	{LayerWLAN, wlanEncrypted}: "encrypted", {LayerWLAN, wlanFragment}: "fragment", {LayerWLAN, wlanDamaged}: "damaged",
}

// name returns the name of the number, or "".
func (u Undecoded) name() string {
	switch {
	case u.Layer == LayerTunnel && u.Number <= uint64(len(links.Encapsulations())):
		return links.Encapsulation(u.Number).String()
	case u.Layer == LayerWLAN && u.Number>>4 == 0:
		return "management"
	case u.Layer == LayerWLAN && u.Number>>4 == 1:
		return "control"
	case u.Layer == LayerWLAN && u.Number>>4 == 2:
		return "no_data"
	}
	return undecodedNames[u]
}

// layerTitles name the numbers of the layers for a person.
var layerTitles = [numLayers]string{
	"", "link type", "EtherType", "LLC access point", "SNAP", "PPP protocol", "loopback family", "802.11", "MPLS payload",
	"NSH protocol", "GRE type", "IP protocol", "tunnel",
}

// String returns the layer, the number and its name: "EtherType 0x88cc (lldp)".
func (u Undecoded) String() string {
	title := layerTitles[u.Layer]
	text := fmt.Sprintf("%s %d", title, u.Number)
	switch u.Layer {
	case LayerEther, LayerPPP, LayerGRE:
		text = fmt.Sprintf("%s 0x%04x", title, u.Number)
	case LayerLLC:
		text = fmt.Sprintf("%s 0x%02x", title, u.Number)
	case LayerSNAP:
		oui := u.Number >> 16
		text = fmt.Sprintf("%s %02x:%02x:%02x 0x%04x", title, oui>>16, oui>>8&0xff, oui&0xff, u.Number&0xffff)
	case LayerTunnel, LayerWLAN:
		if name := u.name(); name != "" {
			return title + " " + name
		}
	}
	if name := u.name(); name != "" {
		text += " (" + name + ")"
	}
	return text
}

// undecodedCounters count the packets that are not decoded, by layer and name.
type undecodedCounters struct {
	named map[Undecoded]counter
	other [numLayers]counter
	wlan  [3]counter // by frame type: management, control, data frames without data
}

// newUndecodedCounters makes the counters, which start at 0. The tunnels that are not opened have counters of their own.
func newUndecodedCounters(factory metrics.Factory) (out undecodedCounters) {
	packets := factory.CounterVec("tidegate_sessions_undecoded_packets_total",
		"Packets that were not decoded, by the layer that says what follows it (link, ethertype, llc, snap, ppp, loopback, wlan, "+
			"mpls, nsh, gre, ip), and by what follows.", "layer", "type")
	out.named = map[Undecoded]counter{}
	for header, name := range undecodedNames {
		out.named[header] = packets.WithLabelValues(header.Layer.String(), name)
	}
	for layer := noLayer + 1; layer < LayerTunnel; layer++ {
		out.other[layer] = packets.WithLabelValues(layer.String(), "other")
	}
	for typ := range out.wlan {
		name := Undecoded{LayerWLAN, uint64(typ) << 4}.name()
		out.wlan[typ] = packets.WithLabelValues(LayerWLAN.String(), name)
	}
	return out
}

// add counts a packet.
func (c *undecodedCounters) add(header Undecoded) {
	switch count, ok := c.named[header]; {
	case ok:
		count.Inc()
	case header.Layer == LayerTunnel || header.Layer == noLayer: // counted elsewhere
	case header.Layer == LayerWLAN && header.Number>>4 < uint64(len(c.wlan)):
		c.wlan[header.Number>>4].Inc()
	default:
		c.other[header.Layer].Inc()
	}
}
