//go:build linux

package links_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidegate/collector/links"
	"tidegate/pipeline/netnstest"
)

// TestDevicesOfTheKernel: a Monitor knows the tunnels of each kind of device as the kernel describes them, only on
// their underlay, with their port, id and ends, and only while they are up.
func TestDevicesOfTheKernel(t *testing.T) {
	h := newHost(t)
	ip(t, h.name, "link add eth1 type veth peer name eth1p")
	ip(t, h.name, "addr add 192.0.2.1/24 dev eth1")
	ip(t, h.name, "link set eth1 up")
	ip(t, h.name, "link add br0 type bridge")
	ip(t, h.name, "addr add 203.0.113.1/24 dev br0")
	ip(t, h.name, "link set br0 up")
	var up []string
	for _, device := range []string{
		"vx1 type vxlan id 1 dstport 4789 dev eth0 local 198.51.100.1",
		"vx2 type vxlan id 2 dstport 8472 local 192.0.2.1",
		"vx3 type vxlan dstport 4790 external",
		"vx4 type vxlan id 4 dstport 4789 dev br0",
		"gn1 type geneve id 9 remote 198.51.100.2",
		"gr1 type gre local 198.51.100.1 remote 198.51.100.2 ikey 10 okey 11",
		"gr2 type gretap local 192.0.2.1 remote 192.0.2.2",
		"ip1 type ipip local 198.51.100.1 remote 198.51.100.2",
	} {
		name, _, _ := strings.Cut(device, " ")
		if err := exec.Command("ip", append([]string{"-n", h.name, "link", "add"}, strings.Fields(device)...)...).Run(); err != nil {
			if strings.HasPrefix(name, "vx") {
				t.Fatal(device)
			}
			t.Logf("this kernel has no such device: %s", device) // TestAttributes covers its kind
			continue
		}
		up = append(up, name)
	}
	monitor := links.NewMonitor([]string{"mirror*"}, func() []links.Overlay {
		return []links.Overlay{{ID: 4097, Port: links.PortVXLAN}}
	}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	ctx, cancel := context.WithCancel(context.Background())
	changed := monitor.Subscribe()
	done := netnstest.Start(t, h.name, func() { _ = monitor.Run(ctx) })
	defer func() { cancel(); <-done }()
	<-changed

	for address, want := range map[string]bool{"203.0.113.77": false, "198.51.100.7": true} {
		if got := monitor.IsOutsideBridge("br0", netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is outside of br0: %v", address, got)
		}
	}

	check := func(name, iface, src, dst string, kind links.Encapsulation, port uint16, id uint32, want bool) {
		t.Helper()
		device := map[links.Encapsulation]string{links.Geneve: "gn1", links.GRE: "gr1", links.IPIP: "ip1"}[kind]
		if device != "" && want && !slices.Contains(up, device) {
			return
		}
		outer := links.OuterHeader{
			Kind: kind, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), SrcPort: 50000, DstPort: port, ID: id,
		}
		if port == 0 {
			outer.SrcPort = 0
		}
		known := monitor.IsKnown(iface, outer)
		for range 200 { // until the Monitor has seen the latest change
			if known == want {
				break
			}
			time.Sleep(10 * time.Millisecond)
			known = monitor.IsKnown(iface, outer)
		}
		if known != want {
			t.Errorf("%s: known %v, want %v", name, known, want)
		}
	}
	own, peer, other := "198.51.100.1", "198.51.100.2", "198.51.100.3"
	check("a device that is down", "eth0", own, peer, links.VXLAN, 4789, 1, false)
	for _, name := range up {
		ip(t, h.name, "link set "+name+" up")
	}
	check("out", "eth0", own, peer, links.VXLAN, 4789, 1, true)
	check("in, from any end", "eth0", other, own, links.VXLAN, 4789, 1, true)
	check("on another interface", "eth1", own, peer, links.VXLAN, 4789, 1, false)
	check("between others", "eth0", peer, other, links.VXLAN, 4789, 1, false)
	check("another network", "eth0", own, peer, links.VXLAN, 4789, 3, false)
	check("another port", "eth0", own, peer, links.VXLAN, 8472, 1, false)
	check("another kind", "eth0", own, peer, links.Geneve, 4789, 1, false)
	check("own address without an interface", "eth1", "192.0.2.1", "192.0.2.2", links.VXLAN, 8472, 2, true)
	check("another own address", "eth0", own, peer, links.VXLAN, 8472, 2, false)
	check("any network", "eth1", "192.0.2.1", "192.0.2.2", links.VXLAN, 4790, 77, true)
	check("on a bridge", "br0", "203.0.113.1", "203.0.113.2", links.VXLAN, 4789, 4, true)
	check("geneve", "eth0", own, peer, links.Geneve, 6081, 9, true)
	check("geneve from another end", "eth0", other, own, links.Geneve, 6081, 9, false)
	check("gre in", "eth0", peer, own, links.GRE, 0, 10, true)
	check("gre out", "eth0", own, peer, links.GRE, 0, 11, true)
	check("gre with another key", "eth0", own, peer, links.GRE, 0, 12, false)
	check("gre in udp", "eth0", peer, own, links.GRE, 4754, 10, false)
	check("gretap", "eth1", "192.0.2.1", "192.0.2.2", links.GRE, 0, 0, true)
	check("ipip", "eth0", peer, own, links.IPIP, 0, 0, true)
	check("ipip from another end", "eth0", other, own, links.IPIP, 0, 0, false)
	check("an overlay network of Docker", "eth0", peer, own, links.VXLAN, 4789, 4097, true)
	check("one that Docker has not", "eth0", peer, own, links.VXLAN, 4789, 4098, false)
	check("configured", "mirror0", peer, other, links.GTP, 2152, 5, true)
	ip(t, h.name, "link del vx1")
	check("a device that is gone", "eth0", own, peer, links.VXLAN, 4789, 1, false)
}
