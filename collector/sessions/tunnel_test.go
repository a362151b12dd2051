package sessions

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket/layers"

	"tidegate/collector/links"
)

// knownTunnels is a Tunnels that knows the outer headers for which it returns true.
type knownTunnels func(iface string, outer links.OuterHeader) bool

func (f knownTunnels) IsKnown(iface string, outer links.OuterHeader) bool { return f(iface, outer) }

// vxlanOf returns an Ethernet frame in a VXLAN datagram of the network 7.
func vxlanOf(t testing.TB, src, dst string, inner []byte) []byte {
	return udpFrame(t, addrPort(src), addrPort(dst), 1, "\x08\x00\x00\x00\x00\x00\x07\x00"+string(inner))
}

// wrapped are the ways in which a container could hide a segment of another connection: the frames that carry the
// Ethernet frame inner.
func wrapped(t testing.TB, inner []byte) map[string][]byte {
	eth, ip := string(inner[:12]), inner[14:]
	udp := func(port int, header string, inside []byte) []byte {
		return udpFrame(t, addrPort("172.17.0.9:50000"), addrPort(fmt.Sprintf("172.17.0.1:%d", port)), 1,
			header+string(inside))
	}
	outer4 := func(proto layers.IPProtocol, header string, inside []byte) []byte {
		frame := slices.Clone(udp(1, "", append([]byte(header), inside...)))
		head, rest := frame[:34], frame[42:]
		head[16], head[17] = byte((20+len(rest))>>8), byte(20+len(rest))
		head[23] = byte(proto)
		return append(head, rest...)
	}
	return map[string][]byte{
		"vxlan":       udp(4789, "\x08\x00\x00\x00\x00\x00\x07\x00", inner),
		"vxlan linux": udp(8472, "\x08\x00\x00\x00\x00\x00\x07\x00", inner),
		"geneve":      udp(6081, "\x00\x00\x65\x58\x00\x00\x07\x00", inner),
		"gtp":         udp(2152, "\x30\xff\x00"+string(byte(len(ip)))+"\x00\x00\x00\x07", ip),
		"gre in udp":  udp(4754, "\x00\x00\x08\x00", ip),
		"gre":         outer4(47, "\x00\x00\x08\x00", ip),
		"ipip":        outer4(4, "", ip),
		"ah":          outer4(51, "\x06\x01\x00\x00\x00\x00\x00\x07\x00\x00\x00\x01", ip[20:]),
		"mpls":        append([]byte(eth+"\x88\x47\x00\x02\x01\x40"), ip...),
		"pppoe":       append([]byte(eth+"\x88\x64\x11\x00\x00\x09\x00"+string(byte(len(ip)+2))+"\x00\x21"), ip...),
		"vntag":       append([]byte(eth+"\x89\x26\x00\x00\x00\x00\x08\x00"), ip...),
		"snap":        append([]byte(eth+"\x00"+string(byte(len(ip)+8))+"\xaa\xaa\x03\x00\x00\x00\x08\x00"), ip...),
		"vlan":        append([]byte(eth+"\x81\x00\x00\x07\x08\x00"), ip...),
	}
}

// send passes a frame to the Table of an interface.
func (h *natHost) send(iface string, frame []byte) {
	h.now += 1e5
	h.tableOf(iface).Packet(iface, layers.LinkTypeEthernet, startTime+int64(h.now), frame, len(frame))
}

// TestContainerForgesNoConnection: a whole connection between two others that a container sends in a tunnel of any
// kind is no event of theirs, on any bridge and, without a known tunnel, on no other interface.
func TestContainerForgesNoConnection(t *testing.T) {
	client, server := addrPort("172.17.0.2:40000"), addrPort("172.17.0.3:3306")
	segments := [][]byte{
		tcpFrame(t, client, server, "S", 0, 0, 1, ""),
		tcpFrame(t, server, client, "SA", 0, 1, 2, ""),
		tcpFrame(t, client, server, "A", 1, 1, 3, "SELECT card"),
		tcpFrame(t, server, client, "A", 1, 12, 4, "4111"),
	}
	for name := range wrapped(t, segments[0]) {
		for _, iface := range []string{"docker0", "eth0"} {
			host := newHost(t, nil)
			if iface == "docker0" { // even if the kernel says so
				host.deps.Tunnels = knownTunnels(func(string, links.OuterHeader) bool { return true })
			}
			if name == "vlan" && iface == "eth0" {
				continue // a VLAN on eth0 is the network's
			}
			for _, segment := range segments {
				host.send(iface, wrapped(t, segment)[name])
			}
			table := host.tableOf(iface)
			table.Close()
			for _, event := range host.events {
				if client, server := event.Source.GetContainer(), event.Destination.GetContainer(); name != "vlan" &&
					client != nil && client.Id == "172.17.0.2" || server != nil && server.Id == "172.17.0.3" && name != "vlan" {
					t.Errorf("%s on %s: an event %s of %s and %s", name, iface, event.Dataset, client.GetId(), server.GetId())
				}
			}
			var unopened float64
			for _, counter := range table.metrics.unopenedTunnels {
				unopened += counterValue(counter)
			}
			if name != "vlan" && unopened != float64(len(segments)) {
				t.Errorf("%s on %s: %v tunnels counted as not opened", name, iface, unopened)
			}
		}
	}
}

// TestTunnelDoesNotTouchConnectionsOutside: segments inside a tunnel of any kind neither end nor fill the connection
// on the same addresses outside of it, whether the tunnel is opened or not.
func TestTunnelDoesNotTouchConnectionsOutside(t *testing.T) {
	client, server := addrPort("172.17.0.9:40000"), addrPort("172.17.0.3:80")
	forged := [][]byte{
		tcpFrame(t, client, server, "S", 5000, 0, 1, ""),
		tcpFrame(t, server, client, "SA", 7000, 5001, 2, ""),
		tcpFrame(t, client, server, "A", 5001, 7001, 3, "innocent"),
		tcpFrame(t, client, server, "R", 101, 0, 4, ""),
		tcpFrame(t, client, server, "A", 101, 501, 5, "innocent"),
	}
	check := func(name, iface string, tunnels Tunnels) {
		t.Helper()
		host := newHost(t, nil)
		host.deps.Tunnels = tunnels
		host.send(iface, tcpFrame(t, client, server, "S", 100, 0, 11, ""))
		host.send(iface, tcpFrame(t, server, client, "SA", 500, 101, 12, ""))
		host.send(iface, tcpFrame(t, client, server, "A", 101, 501, 13, ""))
		for _, segment := range forged {
			host.send(iface, wrapped(t, segment)[name])
		}
		host.tableOf(iface).Tick(startTime + int64(host.now) + 3e9)
		host.now += 3e9
		host.send(iface, tcpFrame(t, client, server, "A", 101, 501, 14, "attack"))
		host.tableOf(iface).Close()
		var told []string
		for _, event := range host.events {
			if event.Tunnel != nil || event.Vlan != 0 || event.Destination.Port != 80 {
				continue
			}
			told = append(told, event.Dataset.Name())
			if session := event.Session; session != nil && (event.Source.Bytes != 6 || session.State != stateShutdown) {
				t.Errorf("%s on %s: the session has %d bytes and ended with %s", name, iface, event.Source.Bytes, session.State)
			}
		}
		if want := []string{"redis", "session"}; !slices.Equal(told, want) {
			t.Errorf("%s on %s: events of the connection: %v, want %v", name, iface, told, want)
		}
	}
	for name := range wrapped(t, forged[0]) {
		check(name, "docker0", nil)
		if name == "vlan" {
			continue
		}
		check(name, "eth0", nil)
		if name != "ah" && name != "vntag" && name != "snap" { // no tunnels, but other forms of the same packet
			check(name, "eth0", EveryTunnel)
		}
	}
}

// TestTunnelClaimsNoConnectionOutside: one packet in a tunnel that is opened on one interface does not make another
// interface's copy of the connection on the same addresses a duplicate.
func TestTunnelClaimsNoConnectionOutside(t *testing.T) {
	host := newHost(t, nil)
	host.deps.Tunnels = EveryTunnel
	host.deps.Containers = nil
	leg := natLeg{"eth0", "198.51.100.7:40000", "203.0.113.1:80"}
	host.send("br-1", vxlanOf(t, "172.17.0.9:5000", "172.17.0.1:4789",
		tcpFrame(t, addrPort(leg.client), addrPort(leg.server), "S", 100, 0, 1, "")))
	for step := range 8 {
		host.sendStep(leg, step)
	}
	host.tableOf("eth0").Close()
	var told []string
	for _, event := range host.events {
		if event.Tunnel == nil {
			told = append(told, event.Dataset.Name())
		}
	}
	if want := []string{"redis", "redis", "session"}; !slices.Equal(told, want) {
		t.Errorf("events of the connection on eth0: %v, want %v", told, want)
	}
}

// TestKnownTunnelIsOpened: the connection in a tunnel of this host is told with the tunnel, without containers, and
// apart from one on the same addresses in another network of the same tunnel.
func TestKnownTunnelIsOpened(t *testing.T) {
	host := newHost(t, fakeNAT{})
	var asked []links.OuterHeader
	host.deps.Tunnels = knownTunnels(func(iface string, outer links.OuterHeader) bool {
		asked = append(asked, outer)
		return iface == "eth0" && outer.Kind == links.VXLAN && outer.DstPort == 4789
	})
	client, server := addrPort("172.17.0.2:40000"), addrPort("172.17.0.3:3306")
	for _, vni := range []byte{7, 8} {
		there := func(inner []byte) []byte {
			frame := vxlanOf(t, "198.51.100.1:50000", "198.51.100.2:4789", inner)
			frame[48] = vni
			return frame
		}
		back := func(inner []byte) []byte {
			frame := vxlanOf(t, "198.51.100.2:60000", "198.51.100.1:4789", inner)
			frame[48] = vni
			return frame
		}
		host.send("eth0", there(tcpFrame(t, client, server, "S", 0, 0, 1, "")))
		host.send("eth0", back(tcpFrame(t, server, client, "SA", 0, 1, 2, "")))
		host.send("eth0", there(tcpFrame(t, client, server, "A", 1, 1, 3, "ask")))
		host.send("eth0", back(tcpFrame(t, server, client, "A", 1, 4, 4, "tell")))
	}
	host.tableOf("eth0").Close()
	told := map[string]int{}
	for _, event := range host.events {
		tunnel := event.Tunnel
		told[fmt.Sprintf("%s %s %d %v→%v", event.Dataset.Name(), tunnel.GetType(), tunnel.GetId(), tunnel.GetSourceIp(),
			tunnel.GetDestinationIp())]++
		if event.Container != nil || event.Source.Container != nil || event.Destination.Container != nil {
			t.Errorf("an address in a tunnel is that of container %v", event.Container)
		}
	}
	pair := "[198 51 100 1]→[198 51 100 2]"
	for _, vni := range []string{"7", "8"} {
		if told["redis vxlan "+vni+" "+pair] != 2 || told["session vxlan "+vni+" "+pair] != 1 {
			t.Errorf("network %s: %v", vni, told)
		}
	}
	if len(told) != 4 || asked[0].Nested || asked[0].ID != 7 || asked[0].SrcPort != 50000 {
		t.Errorf("told %v, asked %+v", told, asked[0])
	}
	ids := map[string]bool{}
	for _, event := range host.events {
		ids[string(event.Id)] = true
	}
	if len(ids) != len(host.events) {
		t.Errorf("%d events have %d ids", len(host.events), len(ids))
	}
}

// TestMasqueradedTunnelIsNotOpened: a container that sends to the port of a known tunnel is seen on eth0 with the
// address of the host. The connection tracker, or the outer address itself, shows that it is the container.
func TestMasqueradedTunnelIsNotOpened(t *testing.T) {
	inner := tcpFrame(t, addrPort("10.0.0.2:40000"), addrPort("10.0.0.3:80"), "S", 0, 0, 1, "")
	known := knownTunnels(func(string, links.OuterHeader) bool { return true })
	check := func(name, src string, nested bool, want bool) {
		t.Helper()
		host := newHost(t, nil)
		host.deps.Tunnels = known
		host.deps.IsTranslated = func(proto uint8, src, dst netip.AddrPort) bool {
			return proto == protoUDP && src == addrPort("198.51.100.1:50000") && dst == addrPort("198.51.100.2:4789")
		}
		if nested {
			host.deps.Tunnels = knownTunnels(func(_ string, outer links.OuterHeader) bool { return !outer.Nested })
			inner = vxlanOf(t, "10.0.0.8:5000", "10.0.0.9:4789", inner)
		}
		host.send("eth0", vxlanOf(t, src, "198.51.100.2:4789", inner))
		host.tableOf("eth0").Close()
		session := host.events[len(host.events)-1]
		ip, _ := netip.AddrFromSlice(session.Source.Ip)
		if opened := strings.HasPrefix(ip.String(), "10.") && session.Source.Port == 40000; opened != want {
			t.Errorf("%s: opened %v, want %v", name, opened, want)
		}
	}
	check("the host's own", "198.51.100.1:50001", false, true)
	check("masqueraded", "198.51.100.1:50000", false, false)
	check("routed", "172.17.0.9:50001", false, false)
	check("in the tunnel", "198.51.100.1:50001", true, false)
}

// TestTunnelOfAnotherNetworkIsNotOpened: whether a tunnel is known is decided for its network, too, on the same addresses.
func TestTunnelOfAnotherNetworkIsNotOpened(t *testing.T) {
	host := newHost(t, fakeNAT{})
	host.deps.Tunnels = knownTunnels(func(_ string, outer links.OuterHeader) bool { return outer.ID == 7 })
	client, server := addrPort("172.17.0.2:40000"), addrPort("172.17.0.3:3306")
	for seq, vni := range []byte{7, 8, 7, 9} {
		frame := vxlanOf(t, "198.51.100.1:50000", "198.51.100.2:4789", tcpFrame(t, client, server, "A", uint32(1+seq), 1, uint16(seq), "x"))
		frame[48] = vni
		host.send("eth0", frame)
	}
	host.tableOf("eth0").Close()
	told := map[uint32]uint64{}
	for _, event := range host.events {
		if event.Session != nil && event.Tunnel != nil {
			told[event.Tunnel.Id] += event.Source.Packets
		}
	}
	if len(told) != 1 || told[7] != 2 {
		t.Errorf("packets by the number of the network: %v, want two of 7", told)
	}
}
