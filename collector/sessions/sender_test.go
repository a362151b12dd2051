package sessions

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tidegate/pipeline"
)

// sendersFunc is a Senders.
type sendersFunc func(ip netip.Addr, mac uint64, at int64) (*pipeline.Container, bool)

func (f sendersFunc) CheckSender(ip netip.Addr, mac uint64, at int64) (*pipeline.Container, bool) {
	return f(ip, mac, at)
}

// newBridgeHost returns a host whose containers 172.17.0.N have the MAC address 02:…:N, and which itself has 02:…:01.
func newBridgeHost(t testing.TB) *natHost {
	host := newHost(t, nil)
	host.deps.IsHostMAC = func(mac uint64) bool { return mac == 0x020000000001 }
	host.deps.Senders = sendersFunc(func(ip netip.Addr, mac uint64, _ int64) (*pipeline.Container, bool) {
		if !strings.HasPrefix(ip.String(), "172.1") || mac == 0x020000000000|uint64(ip.As4()[3]) {
			return nil, false
		}
		if mac>>8 == 0x0200000000 {
			return &pipeline.Container{Id: netip.AddrFrom4([4]byte{172, 17, 0, byte(mac)}).String()}, true
		}
		return nil, true
	})
	return host
}

// from returns the frame with the source MAC address 02:00:00:00:00:last.
func from(last byte, frame []byte) []byte {
	return slices.Concat(frame[:6], []byte{2, 0, 0, 0, 0, last}, frame[12:])
}

// TestSpoofedSourceIsTheSenders: an event whose packets have the address of another container is that of the container
// that sent them, if it is known, and is marked. The address of a container is its own if the host has routed the packet.
func TestSpoofedSourceIsTheSenders(t *testing.T) {
	check := func(iface string, mac byte, wantContainer string, wantSpoofed bool) {
		t.Helper()
		host := newBridgeHost(t)
		for range 2 {
			host.send(iface, from(mac, udpFrame(t, addrPort("172.17.0.2:4000"), addrPort("198.51.100.1:53"), 1, "query")))
		}
		host.tableOf(iface).Close()
		for _, event := range host.events {
			spoofed := slices.Contains(event.Tags, pipeline.TagSourceSpoofed)
			if spoofed != wantSpoofed || event.Source.GetContainer().GetId() != wantContainer ||
				event.Container.GetId() != wantContainer {
				t.Errorf("%s, MAC %d: %s of %q and %q, spoofed %v", iface, mac, event.Dataset, event.Source.GetContainer().GetId(),
					event.Container.GetId(), spoofed)
			}
		}
		packets := counterValue(host.tableOf(iface).metrics.spoofedPackets)
		if len(host.events) < 2 || wantSpoofed != (packets == 2) {
			t.Errorf("%s, MAC %d: %d events, %v packets counted", iface, mac, len(host.events), packets)
		}
	}
	check("docker0", 2, "172.17.0.2", false)
	check("docker0", 1, "172.17.0.2", false)
	check("docker0", 9, "172.17.0.9", true)
	check("eth0", 9, "172.17.0.2", false) // the MAC address of a router
}

// TestSpoofedPacketsDoNotTouchTheConnection: packets of another sender neither end a connection nor add to it, and do
// not claim it on another interface.
func TestSpoofedPacketsDoNotTouchTheConnection(t *testing.T) {
	host := newBridgeHost(t)
	client, server := addrPort("172.17.0.2:40000"), addrPort("172.17.0.3:80")
	host.send("docker0", from(9, tcpFrame(t, client, server, "S", 9000, 0, 1, "")))
	host.send("docker0", from(2, tcpFrame(t, client, server, "S", 100, 0, 2, "")))
	host.send("docker0", from(3, tcpFrame(t, server, client, "SA", 500, 101, 3, "")))
	host.send("docker0", from(2, tcpFrame(t, client, server, "A", 101, 501, 4, "")))
	host.send("docker0", from(9, tcpFrame(t, client, server, "A", 101, 501, 5, "forged")))
	host.send("docker0", from(9, tcpFrame(t, client, server, "R", 101, 0, 6, "")))
	host.tableOf("docker0").Tick(startTime + int64(host.now) + 3e9)
	host.now += 3e9
	host.send("docker0", from(2, tcpFrame(t, client, server, "A", 101, 501, 7, "four")))
	host.tableOf("docker0").Close()
	told := map[string]int{}
	for _, event := range host.events {
		name := event.Dataset.Name()
		if slices.Contains(event.Tags, pipeline.TagSourceSpoofed) {
			name = "spoofed " + name
		} else if event.Session != nil && (event.Source.Bytes != 4 || event.Source.Container.GetId() != "172.17.0.2") {
			t.Errorf("%d bytes of %v", event.Source.Bytes, event.Source.Container)
		}
		told[name]++
	}
	if told["redis"] != 1 || told["session"] != 1 || told["spoofed session"] == 0 {
		t.Errorf("events %v", told)
	}
}

// TestEventsOfAMovedMACAreMarked: events are marked if two containers have sent with the MAC address of an end, also if
// that is known only after the packet, unless they are emitted by then.
func TestEventsOfAMovedMACAreMarked(t *testing.T) {
	for name, knownAt := range map[string]int{"before": 0, "after the packet": 1, "never": 2} {
		host := newBridgeHost(t)
		moved := false
		host.deps.HasMovedMAC = func(mac uint64, _ int64) bool { return moved && mac == 0x020000000002 }
		for i, client := range []string{"172.17.0.2:4000", "172.17.0.4:4000"} {
			moved = knownAt == 0
			mac := addrPort(client).Addr().As4()[3]
			frame := udpFrame(t, addrPort(client), addrPort("198.51.100.1:53"), uint16(i), "query")
			host.send("docker0", from(mac, frame))
		}
		moved = knownAt < 2
		host.tableOf("docker0").Close()
		for _, event := range host.events {
			want := (knownAt == 0 || knownAt == 1 && event.Session != nil) && event.Source.Ip[3] == 2
			if got := slices.Contains(event.Tags, pipeline.TagMACMoved); got != want {
				t.Errorf("known %s: %s of %v: marked %v", name, event.Dataset, event.Source.Ip, got)
			}
		}
		if len(host.events) < 2 {
			t.Errorf("known %s: %d events", name, len(host.events))
		}
	}
}

// BenchmarkCheckSender measures what the check of a packet on a bridge costs.
func BenchmarkCheckSender(b *testing.B) {
	host := newBridgeHost(b)
	table := host.tableOf("docker0")
	frame := from(2, tcpFrame(b, addrPort("172.17.0.2:4000"), addrPort("172.17.0.3:80"), "A", 1, 1, 1, "abc"))
	p := packet{iface: table.ifaceIndex("docker0"), src: addrOf(addrPort("172.17.0.2:1").Addr()), clock: 1}
	b.ReportAllocs()
	for b.Loop() {
		table.checkSender(&p, frame)
	}
}
