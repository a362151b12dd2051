package containers

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/client"

	"tidegate/collector/links"
)

// A network is a bridge network of Docker.
type network struct {
	bridge  string // name of its interface
	subnets []netip.Prefix
	routers []netip.Addr // addresses of the host in subnets
}

// listNetworks reads all bridge networks. The caller publishes a view afterwards.
func (r *Registry) listNetworks(ctx context.Context, api *client.Client) error {
	result, err := api.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		r.metrics.errors.WithLabelValues("networks").Inc()
		return err
	}

	var list []network
	var overlays []links.Overlay
	uncaptured := map[string]string{} // drivers by name of network
	for i := range result.Items {
		described := &result.Items[i].Network
		switch described.Driver {
		case "bridge":
		case "overlay":
			overlays = append(overlays, overlaysOf(described.Options)...)
			continue
		case "host", "null": // the host's own interfaces, and none
			continue
		default:
			uncaptured[described.Name] = described.Driver
			continue
		}
		found := network{bridge: described.Options["com.docker.network.bridge.name"]}
		if found.bridge == "" && len(described.ID) >= 12 {
			found.bridge = "br-" + described.ID[:12]
		}
		for _, pool := range described.IPAM.Config {
			if pool.Subnet.IsValid() {
				subnet := pool.Subnet.Masked()
				found.subnets = append(found.subnets, subnet)
			}
			switch {
			case described.Options["com.docker.network.bridge.inhibit_ipv4"] == "true": // the gateway is another host
			case pool.Gateway.IsValid():
				found.routers = append(found.routers, pool.Gateway)
			case pool.Subnet.IsValid(): // Docker uses the first address if no gateway is configured
				found.routers = append(found.routers, pool.Subnet.Masked().Addr().Next())
			}
		}
		list = append(list, found)
	}
	slices.SortFunc(list, func(a, b network) int { return cmp.Compare(a.bridge, b.bridge) })

	r.mu.Lock()
	defer r.mu.Unlock()
	r.networks, r.overlays = list, overlays
	r.countUncaptured(uncaptured)
	return nil
}

// countUncaptured counts and logs the networks without a bridge on this host (macvlan, ipvlan, of a plugin), each once:
// what their containers send to each other crosses no interface that can be captured. r.mu is held.
func (r *Registry) countUncaptured(drivers map[string]string) {
	for name, driver := range drivers {
		if r.uncaptured[name] != driver {
			r.log.Warn("traffic inside of a Docker network is not captured, its driver has no bridge",
				"network", name, "driver", driver)
		}
	}
	r.uncaptured = drivers
	r.metrics.uncaptured.Set(float64(len(drivers)))
}

// overlaysOf returns the VXLAN networks of an overlay network with the given options. Only the managers of a
// swarm know a port other than the usual one; capture.underlays is for that.
func overlaysOf(options map[string]string) (overlays []links.Overlay) {
	for id := range strings.SplitSeq(options["com.docker.network.driver.overlay.vxlanid_list"], ",") {
		if number, err := strconv.ParseUint(strings.TrimSpace(id), 10, 24); err == nil {
			overlays = append(overlays, links.Overlay{ID: uint32(number), Port: links.PortVXLAN})
		}
	}
	return overlays
}
