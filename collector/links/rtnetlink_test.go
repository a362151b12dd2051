//go:build linux

package links

import (
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"

	"tidegate/pipeline/lineartest"
)

// TestAttributes: the attributes of each kind of device, as linux/if_link.h and linux/if_tunnel.h number them, make the
// tunnel that the kernel would open.
func TestAttributes(t *testing.T) {
	eth0 := &device{index: 2, name: "eth0", addrs: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}
	bond0 := &device{index: 3, name: "bond0", addrs: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	slave := &device{index: 4, name: "eth1", master: 3}
	vlan := &device{index: 5, name: "bond0.7", lower: 3}
	guest := &device{index: 6, name: "veth1", master: 3, kind: "veth"}
	devices := []*device{eth0, bond0, slave, vlan, guest}
	locals := slices.Concat(eth0.addrs, bond0.addrs)
	own, peer := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	check := func(kind string, want []tunnel, attributes ...netlink.Attribute) {
		t.Helper()
		data, err := netlink.MarshalAttributes(attributes)
		if err != nil {
			t.Fatal(err)
		}
		d := &device{name: "t0", kind: kind, data: data}
		for i := range want {
			want[i].device = "t0"
		}
		if got := d.tunnels(devices, locals); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
	}
	of := func(typ uint16, data ...byte) netlink.Attribute { return netlink.Attribute{Type: typ, Data: data} }
	addr := func(typ uint16, ip netip.Addr) netlink.Attribute { return of(typ, ip.AsSlice()...) }

	onEth0 := []string{"eth0"}
	check("vxlan", []tunnel{{kind: VXLAN, port: 4789, id: 7, local: own, interfaces: onEth0, locals: eth0.addrs}},
		of(1, 7, 0, 0, 0), addr(2, peer), of(3, 2, 0, 0, 0), addr(4, own), of(15, 0x12, 0xb5), of(25, 0))
	check("vxlan", []tunnel{{kind: VXLAN, port: 8472, anyID: true, locals: locals}}, of(25, 1))
	check("vxlan", []tunnel{{kind: VXLAN, port: 8472, interfaces: []string{"bond0", "eth1", "bond0.7"}, locals: bond0.addrs}},
		of(3, 5, 0, 0, 0))
	check("vxlan", []tunnel{{kind: VXLAN, port: 8472, interfaces: []string{}, locals: locals}}, of(3, 99, 0, 0, 0))
	check("geneve", []tunnel{{kind: Geneve, port: 6081, id: 9, remote: peer, locals: locals}},
		of(1, 9, 0, 0, 0), addr(2, peer), of(5, 0x17, 0xc1))
	check("geneve", []tunnel{{kind: Geneve, port: 6081, anyID: true, locals: locals}}, of(6))
	check("ipip", []tunnel{{kind: IPIP, anyID: true, local: own, remote: peer, interfaces: onEth0, locals: eth0.addrs}},
		of(1, 2, 0, 0, 0), addr(2, own), addr(3, peer))
	check("sit", []tunnel{{kind: IPIP, anyID: true, locals: locals}}, addr(2, netip.IPv4Unspecified()), addr(3, netip.IPv4Unspecified()))
	check("gre", []tunnel{{kind: GRE, anyID: true, local: own, remote: peer, locals: locals}},
		of(2, 0, 0), of(4, 0, 0, 0, 0), of(5, 0, 0, 0, 0), addr(6, own), addr(7, peer))
	check("gretap", []tunnel{{kind: GRE, id: 10, locals: locals}, {kind: GRE, id: 11, locals: locals}},
		of(2, 0x20, 0), of(4, 0, 0, 0, 10), of(5, 0, 0, 0, 11))
	check("gtp", []tunnel{{kind: GTP, port: 2152, anyID: true, locals: locals}})
	check("bridge", nil)
	check("veth", nil)
}

// FuzzLink: no message makes the reader of interfaces panic.
func FuzzLink(f *testing.F) {
	f.Add(make([]byte, 16), "vxlan")
	f.Add(append(make([]byte, 16), 8, 0, 3, 0, 'e', 't', 'h', 0), "gre")
	f.Fuzz(func(t *testing.T, data []byte, kind string) {
		lineartest.CheckRepeated(t, lineartest.Default, data, func(data []byte) {
			if found := parseLink(data); found != nil {
				found.tunnels([]*device{found}, found.addrs)
			}
			_, _, _ = parseAddress(data)
			(&device{kind: kind, data: data}).tunnels(nil, nil)
		})
	})
}

// TestOutsideOfABridge: an address is outside if the bridge has a network of its family, and none contains it.
func TestOutsideOfABridge(t *testing.T) {
	monitor := NewMonitor(nil, nil, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	prefix := netip.MustParsePrefix
	monitor.view.Store(&view{bridgeNets: map[string][]netip.Prefix{
		"docker0": {prefix("172.17.0.0/16"), prefix("fe80::/64")},
		"br-six":  {prefix("172.18.0.0/16"), prefix("fd00:1::/64")},
		"br-none": {},
	}})
	for text, want := range map[string]bool{
		"docker0 172.17.3.4": false, "docker0 172.18.3.4": true, "docker0 203.0.113.9": true,
		"docker0 2001:db8::1": false, "docker0 fe80::1": false, // its networks of IPv6 are not known
		"docker0 255.255.255.255": true, "docker0 224.0.0.1": false, "docker0 0.0.0.0": false,
		"br-six fd00:1::9": false, "br-six 2001:db8::1": true, "br-six 172.17.3.4": true,
		"br-none 203.0.113.9": false, "eth0 203.0.113.9": false,
	} {
		bridge, address, _ := strings.Cut(text, " ")
		if got := monitor.IsOutsideBridge(bridge, netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
